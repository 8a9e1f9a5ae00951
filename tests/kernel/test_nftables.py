"""nftables in process, and by its program."""

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest

from pycni.kernel.firewall.nftables import masquerade, nft
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import Library, NftError, NftUnavailableError, Program
from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.owner import Owner, Stale
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
        masquerade.create(host.netns, CIDRS, MINE)
        masquerade.expect(host.netns, CIDRS, MINE)
        masquerade.delete(host.netns, OTHER)
        masquerade.expect(host.netns, CIDRS, MINE)
        masquerade.delete(host.netns, MINE)
        with pytest.raises(CniError, match=r"masquerading of 10\.1\.0\.2 is missing"):
            masquerade.expect(host.netns, CIDRS, MINE)

    def test_known_elements_are_removed_only_from_their_owner(self, host: Host) -> None:
        masquerade.create(host.netns, CIDRS, MINE)
        masquerade.delete(host.netns, OTHER, CIDRS)
        masquerade.expect(host.netns, CIDRS, MINE)
        masquerade.delete(host.netns, MINE, CIDRS)
        masquerade.delete(host.netns, MINE, CIDRS)
        assert "10.1.0.2" not in host.run("nft list ruleset")

    def test_a_leftover_of_somebody_gives_way(self, host: Host) -> None:
        """IPAM hands an address out again although a DEL was lost."""
        masquerade.create(host.netns, CIDRS, OTHER)
        masquerade.create(host.netns, CIDRS, MINE)
        masquerade.expect(host.netns, CIDRS, MINE)

    def test_gc_removes_what_is_not_valid(self, host: Host) -> None:
        neighbour = [parse_cidr("10.1.0.3/24")]
        masquerade.create(host.netns, CIDRS, MINE)
        masquerade.create(host.netns, neighbour, OTHER)
        masquerade.delete(host.netns, Stale("n", [OTHER]))
        assert "10.1.0.2" not in host.run("nft list ruleset")
        masquerade.expect(host.netns, neighbour, OTHER)
        masquerade.delete(host.netns, Stale("n", []))
        assert "10.1.0.3" not in host.run("nft list ruleset")

    def test_subnets_of_other_lengths_have_rules_of_their_own(self, host: Host) -> None:
        for number, cidr in enumerate(["10.1.0.2/24", "10.2.0.2/16", "10.3.0.2/24", "fd00::2/64", "10.4.0.2/32"]):
            masquerade.create(host.netns, [parse_cidr(cidr)], Owner("n", str(number), "eth0"))
        rules = host.run("nft list chain inet pycni postrouting")
        places = re.findall(r"@(masquerade[-0-9]+) ip6? daddr != \S+ masquerade", rules)
        assert places == ["masquerade4-24", "masquerade4-16", "masquerade6-64", "masquerade4-32"]

    def test_first_attachments_at_the_same_time_make_the_rules_once(self, host: Host) -> None:
        def create(number: int) -> None:
            with host.netns.entered():
                netns = NetnsHandle(OWN, Journal())
            masquerade.create(netns, [parse_cidr(f"10.1.0.{number}/24")], Owner("n", str(number), "eth0"))
            netns.close()

        with ThreadPoolExecutor() as pool:
            list(pool.map(create, range(2, 18)))
        assert host.run("nft list chain inet pycni postrouting").count(" masquerade\n") == 1
        assert host.run("nft list set inet pycni masquerade4-24").count("comment") == 16

    def test_deleting_from_no_table_is_fine(self, host: Host) -> None:
        masquerade.delete(host.netns, MINE)
        masquerade.delete(host.netns, MINE, CIDRS)

    def test_the_rules_are_there_once(self, host: Host) -> None:
        for number in range(3):
            owner = Owner("n", str(number), "eth0")
            cidr = parse_cidr(f"10.1.0.{number + 2}/24")
            masquerade.create(host.netns, [cidr], owner)
        assert host.run("nft list chain inet pycni postrouting").count(" masquerade\n") == 1


def test_a_wrong_script_is_an_error_with_nfts_words(host: Host) -> None:
    opened = nft.opened(host.netns)
    with pytest.raises(NftError, match="nftables refused: .*syntax error"):
        opened.run("add nonsense")


def test_the_library_works_in_the_namespace_where_it_was_opened(host: Host) -> None:
    opened = nft.opened(host.netns)
    assert isinstance(opened, Library)
    opened.run("add table inet mine")
    assert "table inet mine" in host.run("nft list tables")


def test_reading_goes_on_while_others_change_the_rules(host: Host) -> None:
    """Twelve pods of one node stopped at the same time: DEL failed with "Interrupted system call"."""
    masquerade.create(host.netns, CIDRS, MINE)
    enough = Event()

    def change_rules(number: int) -> None:
        opened = nft.opened(host.netns)
        while not enough.is_set():
            opened.run(f"add chain inet pycni other{number}\ndelete chain inet pycni other{number}")

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(change_rules, number) for number in range(4)]
        try:
            for _ in range(200):
                masquerade.expect(host.netns, CIDRS, MINE)
        finally:
            enough.set()
        for writer in writers:
            writer.result()


@pytest.mark.parametrize(
    ("table", "chain", "families"),
    [("nat", "one", ["ip"]), ("nat", "two", ["ip6"]), ("nat", "no", []), ("filter", "one", [])],
)
def test_a_chain_is_looked_up_by_its_name(host: Host, table: str, chain: str, families: list[str]) -> None:
    host.run(
        "nft 'table ip nat { chain one { }; }; table ip6 nat { chain two { }; }; table ip other { chain two { }; }'"
    )
    kernel = lookup(host.netns)
    assert [family for family in ("ip", "ip6") if kernel.has_chain(family, table, chain)] == families


def test_without_nftables_the_error_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_open", Program)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NftUnavailableError) as caught:
        masquerade.create(host.netns, CIDRS, MINE)
    assert "libnftables1" in caught.value.details
    masquerade.delete(host.netns, MINE)
    with pytest.raises(CniError) as probed:
        nft.probe(host.netns)
    assert probed.value.code == 50


MANY_THREADS = """
import threading
from pycni.kernel.firewall.nftables.nft import Library

Library().run('add table inet t; add chain inet t c; add rule inet t c iif "lo" accept')

def read() -> None:
    library = Library()
    for _ in range(300):
        library.run("list chain inet t c")

threads = [threading.Thread(target=read) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("whole")
"""


@pytest.fixture
def crowded() -> Iterator[None]:
    """This process has so many files open that libnftables would end it: it waits by select()."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 1200:
        pytest.skip("may not have so many files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with ExitStack() as stack:
        while stack.enter_context(open("/dev/null", "rb")).fileno() < 1100:  # noqa: PTH123
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("crowded")
def test_a_process_with_many_open_files_uses_the_program(host: Host) -> None:
    masquerade.create(host.netns, CIDRS, MINE)
    masquerade.expect(host.netns, CIDRS, MINE)
    masquerade.delete(host.netns, MINE)


@pytest.mark.usefixtures("crowded")
def test_a_process_with_many_open_files_and_without_the_program_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft.programs, "find", lambda *_: None)
    with pytest.raises(CniError, match="too many files are open") as refused:
        masquerade.create(host.netns, CIDRS, MINE)
    assert refused.value.code == 11


def test_threads_do_not_free_what_the_library_has_only_once(host: Host) -> None:
    """It names interfaces by one cache a process: the server died of it, and with it all calls at hand."""
    done = subprocess.run([sys.executable, "-c", MANY_THREADS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
