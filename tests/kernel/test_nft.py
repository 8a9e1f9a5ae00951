"""nftables in process, and by its program."""

import pytest

from pycni.kernel import masquerade, nft
from pycni.kernel.elements import Element
from pycni.kernel.nft import Library, NftError, NftUnavailableError, Program
from pycni.kernel.owner import Owner
from pycni.protocol.address import parse_cidr
from pycni.protocol.errors import CniError
from pycni.testing import Host

MINE, OTHER = Owner("n", "mine", "eth0"), Owner("n", "other", "eth0")
CIDRS = [parse_cidr("10.1.0.2/24"), parse_cidr("fd00::2/64")]


@pytest.fixture(params=["library", "program"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of running nftables."""
    if request.param == "program":
        monkeypatch.setattr(nft, "_open", Program)
    return str(request.param)


@pytest.mark.usefixtures("way")
class TestElements:
    """What an attachment has in the firewall."""

    def test_they_come_and_go_with_their_owner(self, host: Host) -> None:
        elements = masquerade.elements(CIDRS)
        masquerade.TABLE.create(host.door, elements, MINE, what="masquerade")
        masquerade.TABLE.expect(host.door, elements, MINE, what="masquerading")
        masquerade.TABLE.delete(host.door, OTHER)
        masquerade.TABLE.expect(host.door, elements, MINE, what="masquerading")
        masquerade.TABLE.delete(host.door, MINE)
        with pytest.raises(CniError, match=r"masquerading of 10\.1\.0\.2 is missing"):
            masquerade.TABLE.expect(host.door, elements, MINE, what="masquerading")

    def test_known_elements_are_removed_only_from_their_owner(self, host: Host) -> None:
        elements = masquerade.elements(CIDRS)
        masquerade.TABLE.create(host.door, elements, MINE, what="masquerade")
        masquerade.TABLE.delete(host.door, OTHER, elements)
        masquerade.TABLE.expect(host.door, elements, MINE, what="masquerading")
        masquerade.TABLE.delete(host.door, MINE, elements)
        masquerade.TABLE.delete(host.door, MINE, elements)
        assert "10.1.0.2" not in host.run("nft list ruleset")

    def test_a_leftover_of_somebody_gives_way(self, host: Host) -> None:
        """IPAM hands an address out again although a DEL was lost."""
        elements = masquerade.elements(CIDRS)
        masquerade.TABLE.create(host.door, elements, OTHER, what="masquerade")
        masquerade.TABLE.create(host.door, elements, MINE, what="masquerade")
        masquerade.TABLE.expect(host.door, elements, MINE, what="masquerading")

    def test_the_rules_of_a_subnet_go_with_its_last_address(self, host: Host) -> None:
        first, second = masquerade.elements(CIDRS), masquerade.elements([parse_cidr("10.1.0.3/24")])
        masquerade.TABLE.create(host.door, first, MINE, what="masquerade")
        masquerade.TABLE.create(host.door, second, OTHER, what="masquerade")
        masquerade.TABLE.delete(host.door, MINE)
        assert "subnet-10.1.0.0/24" in host.run("nft list ruleset")
        assert "subnet-fd00" not in host.run("nft list ruleset")
        masquerade.TABLE.expect(host.door, second, OTHER, what="masquerading")
        masquerade.TABLE.delete(host.door, OTHER, second)
        assert "subnet" not in host.run("nft list ruleset")

    def test_deleting_from_no_table_is_fine(self, host: Host) -> None:
        masquerade.TABLE.delete(host.door, MINE)
        masquerade.TABLE.delete(host.door, MINE, masquerade.elements(CIDRS))

    def test_the_rules_are_there_once(self, host: Host) -> None:
        for number in range(3):
            owner = Owner("n", str(number), "eth0")
            cidr = parse_cidr(f"10.1.0.{number + 2}/24")
            masquerade.TABLE.create(host.door, masquerade.elements([cidr]), owner, what="masquerade")
        assert host.run("nft list ruleset").count("masquerade\n") == 1
        assert host.run("nft list chain inet pycni postrouting").count("vmap") == 2


def test_a_wrong_script_is_an_error_with_nfts_words(host: Host) -> None:
    with nft.opened(host.door) as opened, pytest.raises(NftError, match="nftables refused: .*syntax error"):
        opened.run("add nonsense")


def test_the_library_works_in_the_namespace_where_it_was_opened(host: Host) -> None:
    with nft.opened(host.door) as opened:
        assert isinstance(opened, Library)
        opened.run("add table inet mine")
    assert "table inet mine" in host.run("nft list tables")


def test_without_nftables_the_error_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_open", Program)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NftUnavailableError) as caught:
        masquerade.TABLE.create(host.door, [Element("masquerade4", "10.0.0.1")], MINE, what="masquerade")
    assert "libnftables1" in caught.value.details
    masquerade.TABLE.delete(host.door, MINE)
    with pytest.raises(CniError) as probed:
        nft.probe(host.door)
    assert probed.value.code == 50
