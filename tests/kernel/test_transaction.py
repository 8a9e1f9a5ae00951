"""nftables transactions over netlink, compared with nft."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pycni.kernel.firewall.nftables import transaction
from pycni.kernel.firewall.nftables.nft import NftError, opened
from pycni.kernel.firewall.nftables.transaction import Change, CounterChange, ElementChange
from pycni.testing import Host

T = "inet t"
SCRIPT = f"""
table {T} {{
    set pairs {{ type ipv4_addr . ipv4_addr; }}
    set sources6 {{ type ipv6_addr; }}
    set guarded {{ type ifname; }}
    set allowed {{ type ifname . ether_addr; }}
    set hairpin {{ type ifname . ipv4_addr . inet_proto . inet_service; }}
    map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
    map ports6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
    map ways {{ type ifname : verdict; }}
    map users {{ type ifname : counter; }}
    chain there {{ }}
}}
"""
ALL: Sequence[Change] = (
    ElementChange("create", T, "pairs", "10.1.0.2 . 10.1.0.0", comment="pycni n c eth0"),
    ElementChange("create", T, "sources6", "fd00::2", comment="x" * 127),
    ElementChange("add", T, "guarded", '"veth3f9c0011223"'),
    ElementChange("add", T, "guarded", '"veth3f9c0011223"'),
    ElementChange("create", T, "allowed", '"veth0" . 02:00:00:00:00:01'),
    ElementChange("create", T, "hairpin", '"cni0" . 0.0.0.0 . sctp . 1', comment="größe"),
    ElementChange("create", T, "ports", "tcp . 8080", comment="c", value="10.1.0.2 . 80"),
    ElementChange("create", T, "ports6", "2001:db8::1 . udp . 65535", comment="c", value="fd00::2 . 53"),
    ElementChange("create", T, "ways", '"eth0"', value="goto there"),
    CounterChange("add", T, "localnet-cni0"),
    CounterChange("add", T, "localnet-cni0"),
    ElementChange("create", T, "users", '"eth0"', comment="c", value='"localnet-cni0"'),
)


@pytest.fixture
def host(host: Host) -> Host:
    """A host with the sets and maps."""
    run(host, SCRIPT)
    return host


def run(host: Host, script: str) -> None:
    nft = opened(host.netns)
    nft.run(script)


def test_transaction_has_the_same_effect_as_nft(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other")
    run(other, SCRIPT)
    transaction.apply(host.netns, ALL)
    run(other, "\n".join(map(str, ALL)))
    assert host.run("nft -j list ruleset") == other.run("nft -j list ruleset")
    removals = [ElementChange("delete", c.table, c.set_name, c.key) for c in ALL[3:] if isinstance(c, ElementChange)]
    for one in (host, other):
        transaction.apply(one.netns, removals)
        transaction.apply(one.netns, [CounterChange("delete", T, "localnet-cni0")])
    assert host.run("nft list ruleset") == other.run("nft list ruleset")
    assert "elements" in host.run(f"nft list set {T} pairs")
    assert "elements" not in host.run(f"nft list map {T} users")
    other.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (ALL[0], "exists"),
        (ElementChange("add", T, "ports", "tcp . 8080", value="10.1.0.3 . 80"), "exists"),
        (ElementChange("delete", T, "pairs", "10.1.0.3 . 10.1.0.0"), "missing"),
        (ElementChange("create", T, "nowhere", "10.1.0.3"), "missing"),
        (ElementChange("create", "ip nowhere", "pairs", "10.1.0.3"), "missing"),
        (CounterChange("delete", T, "localnet-cni0"), "busy"),
        (CounterChange("delete", T, "localnet-cni1"), "missing"),
    ],
    ids=str,
)
def test_refused_change_rolls_back_the_transaction(host: Host, change: Change, reason: str) -> None:
    transaction.apply(host.netns, ALL)
    before = host.run("nft -j list ruleset")
    new = ElementChange("create", T, "pairs", "10.1.0.99 . 10.1.0.0"), CounterChange("add", T, "new")
    for changes in ([*new, change], [change, *new], [new[0], change, new[1]]):
        with pytest.raises(NftError, match="nftables refused: .*") as caught:
            transaction.apply(host.netns, changes)
        assert [name for name in ("exists", "missing", "busy") if getattr(caught.value, name)] == [reason]
        assert str(change) in str(caught.value)
    assert host.run("nft -j list ruleset") == before


def test_other_errors_are_reported_by_nft(host: Host) -> None:
    with pytest.raises(NftError, match="nftables refused: Error: ") as caught:
        transaction.apply(host.netns, [ElementChange("create", T, "guarded", '"eth0" . "eth1"')])
    assert not any((caught.value.exists, caught.value.missing, caught.value.busy))


def test_lines_for_nft_are_part_of_the_transaction(host: Host) -> None:
    transaction.apply(host.netns, [f"add rule {T} there accept", ALL[0]])
    assert "accept" in host.run(f"nft list chain {T} there")
    with pytest.raises(NftError):
        transaction.apply(host.netns, [f"add rule {T} there drop", ALL[0]])
    assert "drop" not in host.run(f"nft list chain {T} there")


def test_transaction_is_applied_in_the_namespace_of_the_handle(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "other")
    opened(host.netns)
    with pytest.raises(NftError) as caught:
        transaction.apply(other.netns, [ALL[0]])
    assert caught.value.missing
    other.close()
