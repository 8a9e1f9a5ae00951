"""Masquerading with iptables in the format of the Go plugins: two interfaces, repair and GC, in both variants."""

import json
import subprocess
from pathlib import Path

import pytest

from pycni.kernel.firewall.iptables.masquerade import IptablesMasquerade
from pycni.kernel.firewall.iptables.restore import Table
from pycni.kernel.firewall.masquerade import MasqueradeRules
from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr, parse_cidr
from pycni.protocol.errors import CniError
from pycni.testing import Host
from tests.conftest import run_concurrently

FIRST, SECOND, OTHER = Owner("mynet", "cid-1", "eth0"), Owner("mynet", "cid-1", "eth1"), Owner("mynet", "cid-2", "eth0")
CHAIN = "CNI-d976123710b0229df0e9617c"
COMMENT = r'-m comment --comment "name: \"mynet\" id: \"cid-1\""'


def cidrs(*texts: str) -> list[Cidr]:
    return [parse_cidr(text) for text in texts]


FIRST_CIDRS, SECOND_CIDRS = (
    cidrs("10.22.0.2/24", "fd00:22::2/64"),
    cidrs("10.22.0.3/24", "10.33.0.3/24", "fd00:22::3/64"),
)
RULES_4 = [
    f"-A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}",
    f"-A {CHAIN} -d 10.22.0.0/24 {COMMENT} -j ACCEPT",
    f"-A {CHAIN} ! -d 224.0.0.0/4 {COMMENT} -j MASQUERADE",
]
RULES_6 = [
    f"-A POSTROUTING -s fd00:22::2/128 {COMMENT} -j {CHAIN}",
    f"-A {CHAIN} -d fd00:22::/64 {COMMENT} -j ACCEPT",
    f"-A {CHAIN} ! -d ff00::/8 {COMMENT} -j MASQUERADE",
]

pytestmark = pytest.mark.usefixtures("iptables")


def rules(host: Host, version: int = 4) -> list[str]:
    program = "iptables-save" if version == 4 else "ip6tables-save"
    return [line for line in host.run(f"{program} -t nat").splitlines() if line.startswith("-A")]


def chains(host: Host) -> set[str]:
    lines = [*host.run("iptables-save -t nat").splitlines(), *host.run("ip6tables-save -t nat").splitlines()]
    return {line[1:].split()[0] for line in lines if line.startswith(":CNI-")}


def test_rules_are_identical_to_the_go_plugins(host: Host) -> None:
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    assert rules(host) == RULES_4
    assert rules(host, 6) == RULES_6
    IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)


@pytest.mark.parametrize("with_addresses", [True, False])
def test_delete_leaves_nothing(host: Host, *, with_addresses: bool) -> None:
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS if with_addresses else None)
    assert rules(host) == rules(host, 6) == []
    assert chains(host) == set()
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS if with_addresses else None)


@pytest.mark.parametrize("with_addresses", [True, False])
def test_each_interface_of_a_container_has_its_own_jump_rules(host: Host, *, with_addresses: bool) -> None:
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).create(SECOND_CIDRS, SECOND)
    IptablesMasquerade(host.netns).expect([*FIRST_CIDRS, *SECOND_CIDRS], FIRST)
    assert [rule for rule in rules(host) if "ACCEPT" in rule or "MASQ" in rule] == [
        f"-A {CHAIN} -d 10.22.0.0/24 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} -d 10.33.0.0/24 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} ! -d 224.0.0.0/4 {COMMENT} -j MASQUERADE",
    ]
    if with_addresses:
        IptablesMasquerade(host.netns).delete(SECOND, SECOND_CIDRS)
    else:
        IptablesMasquerade(host.netns).delete(SECOND, kept=cidrs("127.0.0.1/8", "10.22.0.2/24", "fd00:22::2/64"))
    IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)
    assert rules(host) == RULES_4
    assert rules(host, 6) == RULES_6
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS)
    assert chains(host) == set()


def test_undo_keeps_the_rules_of_the_other_interface(host: Host) -> None:
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    call = NetnsHandle(OWN, Journal())
    with pytest.raises(CniError, match="injected"), call.journal:
        IptablesMasquerade(call).create(SECOND_CIDRS, SECOND)
        raise CniError("injected")
    call.close()
    assert rules(host) == RULES_4
    assert rules(host, 6) == RULES_6


def test_delete_without_addresses_finds_rules_by_the_chain(host: Host) -> None:
    IptablesMasquerade(host.netns).create([*FIRST_CIDRS, *SECOND_CIDRS], FIRST)
    IptablesMasquerade(host.netns).create(cidrs("10.22.0.9/24"), OTHER)
    IptablesMasquerade(host.netns).delete(FIRST)
    IptablesMasquerade(host.netns).expect(cidrs("10.22.0.9/24"), OTHER)
    assert len(rules(host)) == 3
    assert rules(host, 6) == []


def test_each_call_runs_one_process_per_family(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = []
    table_run = Table._run

    def run(table: Table, command: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
        programs.append(Path(command[0]).name)
        return table_run(table, command, stdin)

    monkeypatch.setattr(Table, "_run", run)
    masquerade = IptablesMasquerade(host.netns)
    for call in (masquerade.create, masquerade.expect):
        call(FIRST_CIDRS, FIRST)
        assert len(programs) == 2
        assert all("-restore" in program for program in programs)
        programs.clear()
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS)
    assert len(programs) == 2


def test_delete_starts_no_process_if_iptables_was_never_used(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_run", lambda *_: pytest.fail("a process was started"))
    IptablesMasquerade(host.netns).delete(FIRST)
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS)
    IptablesMasquerade(host.netns).delete(Stale("mynet", [OTHER]))


def test_rules_of_go_plugins_before_2017_are_deleted(host: Host) -> None:
    host.run(f"iptables -t nat -N {CHAIN} && iptables -t nat -A POSTROUTING -s 10.22.0.2/24 {COMMENT} -j {CHAIN}")
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).delete(FIRST, FIRST_CIDRS)
    assert chains(host) == set()
    assert rules(host) == []


def test_create_repairs_incomplete_and_duplicate_rules(host: Host) -> None:
    """DEL of the Go plugin for one of two interfaces flushes the chain and fails.

    Concurrent ADDs create duplicate jumps (containernetworking/plugins#418 and #683).
    """
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    host.run(f"iptables -t nat -F {CHAIN} && iptables -t nat -A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}")
    with pytest.raises(CniError, match=r"masquerading of 10\.22\.0\.2 is missing in iptables"):
        IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)
    assert sorted(rules(host)) == sorted(RULES_4)


@pytest.mark.exhaustive
def test_200_concurrent_adds_succeed_without_duplicate_rules(host: Host) -> None:
    def add(number: int) -> None:
        call = NetnsHandle(OWN, Journal())
        IptablesMasquerade(call).create(
            cidrs(f"10.22.0.{number}/16", f"fd00:22::{number}/64"), Owner("mynet", str(number), "eth0")
        )
        call.close()

    run_concurrently(host, add, range(200))
    for version in (4, 6):
        lines = rules(host, version)
        assert len(lines) == len(set(lines)) == 600


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("iptables -t nat -D POSTROUTING 1", "-A POSTROUTING -s 10.22.0.2/32"),
        (f"iptables -t nat -D {CHAIN} 1", f"-A {CHAIN} -d 10.22.0.0/24"),
        (f"iptables -t nat -D {CHAIN} 2", "MASQUERADE"),
        (f"iptables -t nat -F && iptables -t nat -X {CHAIN}", "there is no"),
        ("ip6tables -t nat -D POSTROUTING 1", "-A POSTROUTING -s fd00:22::2/128"),
    ],
)
def test_error_names_the_missing_rule(host: Host, change: str, missing: str) -> None:
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    host.run(change)
    with pytest.raises(CniError, match="is missing in iptables: there is no") as caught:
        IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)
    assert missing in str(caught.value)


def test_gc_deletes_chains_without_a_valid_attachment(host: Host) -> None:
    other_network = Owner("othernet", "cid-2", "eth0")
    IptablesMasquerade(host.netns).create(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).create(SECOND_CIDRS, OTHER)
    IptablesMasquerade(host.netns).create(cidrs("10.44.0.2/24"), other_network)
    host.run("iptables -t nat -N CNI-0123456789abcdef01234567")  # of an unknown container
    IptablesMasquerade(host.netns).delete(Stale("mynet", [FIRST]))
    IptablesMasquerade(host.netns).expect(FIRST_CIDRS, FIRST)
    IptablesMasquerade(host.netns).expect(cidrs("10.44.0.2/24"), other_network)
    assert chains(host) == {CHAIN, other_network.container_name("CNI-", 28), "CNI-0123456789abcdef01234567"}
    IptablesMasquerade(host.netns).delete(Stale("mynet", []))
    assert CHAIN not in chains(host)


def test_expect_and_delete_find_the_rules_in_either_backend(host: Host) -> None:
    MasqueradeRules(host.netns).create(FIRST_CIDRS, FIRST, backend="iptables")
    MasqueradeRules(host.netns).create(FIRST_CIDRS, OTHER)
    for backend in ("", "iptables"):
        MasqueradeRules(host.netns).expect(FIRST_CIDRS, FIRST, backend=backend)
    for backend in ("", "nftables"):
        MasqueradeRules(host.netns).expect(FIRST_CIDRS, OTHER, backend=backend)
    with pytest.raises(CniError, match="is missing in nftables"):
        MasqueradeRules(host.netns).expect(FIRST_CIDRS, FIRST, backend="nftables")
    with pytest.raises(CniError, match="is missing in iptables"):
        MasqueradeRules(host.netns).expect(FIRST_CIDRS, OTHER, backend="iptables")
    with pytest.raises(CniError, match="is missing in nftables"):
        MasqueradeRules(host.netns).expect(SECOND_CIDRS, FIRST)
    for owner in (FIRST, OTHER):
        MasqueradeRules(host.netns).delete(owner)
    assert host.netns.journal.failures == []
    assert chains(host) == set()
    assert "10.22.0.2" not in host.run("nft list ruleset")
    assert "10.22.0.3" not in host.run("nft list ruleset")
    MasqueradeRules(host.netns).delete(Stale("mynet", []))
    assert "10.22.0" not in host.run("nft list ruleset")


GO_TABLE = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.22.0.2 ip daddr != 10.22.0.0/24 masquerade comment "%(first)s"
        ip6 saddr fd00:22::2 ip6 daddr != fd00:22::/64 masquerade comment "%(first)s"
        ip saddr 10.22.0.3 ip daddr != 10.22.0.0/24 masquerade comment "%(other)s"
    }
    chain postrouting { type nat hook postrouting priority srcnat; goto masq_checks; }
}
"""


def test_nftables_rules_of_the_go_plugin_are_accepted_and_deleted(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "go.nft"
    script.write_text(GO_TABLE % {"first": FIRST.label, "other": OTHER.label})
    host.run(f"nft -f {script}")
    MasqueradeRules(host.netns).expect(FIRST_CIDRS, FIRST)
    MasqueradeRules(host.netns).expect(FIRST_CIDRS, FIRST, backend="nftables")
    with pytest.raises(CniError, match=r"masquerading of 10\.22\.0\.3 is missing"):
        MasqueradeRules(host.netns).expect(SECOND_CIDRS, FIRST)
    MasqueradeRules(host.netns).delete(FIRST, FIRST_CIDRS)
    assert _comments(host) == [OTHER.label]
    MasqueradeRules(host.netns).delete(Stale("mynet", [OTHER]))
    assert _comments(host) == [OTHER.label]
    MasqueradeRules(host.netns).delete(Stale("mynet", []))
    assert _comments(host) == []


def _comments(host: Host) -> list[str]:
    objects = json.loads(host.run("nft -j list chain inet cni_plugins_masquerade masq_checks"))["nftables"]
    return [item["rule"]["comment"] for item in objects if "rule" in item]
