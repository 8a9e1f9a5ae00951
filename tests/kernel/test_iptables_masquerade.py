"""Masquerading by iptables: the shapes of the Go plugins, two interfaces of a container, garbage; in both variants."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pycni.kernel.firewall import masquerade as choice
from pycni.kernel.firewall.iptables import masquerade
from pycni.kernel.firewall.iptables.restore import Table
from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr, parse_cidr
from pycni.protocol.errors import CniError
from pycni.testing import Host

FIRST, SECOND, OTHER = Owner("mynet", "cid-1", "eth0"), Owner("mynet", "cid-1", "eth1"), Owner("mynet", "cid-2", "eth0")
CHAIN = "CNI-d976123710b0229df0e9617c"
COMMENT = r'-m comment --comment "name: \"mynet\" id: \"cid-1\""'


def cidrs(*texts: str) -> list[Cidr]:
    return [parse_cidr(text) for text in texts]


MINE, NEXT = cidrs("10.22.0.2/24", "fd00:22::2/64"), cidrs("10.22.0.3/24", "10.33.0.3/24", "fd00:22::3/64")
SHAPE_4 = [
    f"-A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}",
    f"-A {CHAIN} -d 10.22.0.0/24 {COMMENT} -j ACCEPT",
    f"-A {CHAIN} ! -d 224.0.0.0/4 {COMMENT} -j MASQUERADE",
]
SHAPE_6 = [
    f"-A POSTROUTING -s fd00:22::2/128 {COMMENT} -j {CHAIN}",
    f"-A {CHAIN} -d fd00:22::/64 {COMMENT} -j ACCEPT",
    f"-A {CHAIN} ! -d ff00::/8 {COMMENT} -j MASQUERADE",
]

pytestmark = pytest.mark.usefixtures("iptables")


def saved(host: Host, version: int = 4) -> list[str]:
    program = "iptables-save" if version == 4 else "ip6tables-save"
    return [line for line in host.run(f"{program} -t nat").splitlines() if line.startswith("-A")]


def chains(host: Host) -> set[str]:
    lines = [*host.run("iptables-save -t nat").splitlines(), *host.run("ip6tables-save -t nat").splitlines()]
    return {line[1:].split()[0] for line in lines if line.startswith(":CNI-")}


def test_the_rules_are_those_of_the_go_plugins_bit_for_bit(host: Host) -> None:
    masquerade.create(host.netns, MINE, FIRST)
    assert saved(host) == SHAPE_4
    assert saved(host, 6) == SHAPE_6
    masquerade.expect(host.netns, MINE, FIRST)


@pytest.mark.parametrize("known", [True, False])
def test_nothing_remains(host: Host, *, known: bool) -> None:
    masquerade.create(host.netns, MINE, FIRST)
    masquerade.delete(host.netns, FIRST, MINE if known else None)
    assert saved(host) == saved(host, 6) == []
    assert chains(host) == set()
    masquerade.delete(host.netns, FIRST, MINE if known else None)


@pytest.mark.parametrize("known", [True, False])
def test_r07_of_two_interfaces_each_has_its_own_jumps(host: Host, *, known: bool) -> None:
    masquerade.create(host.netns, MINE, FIRST)
    masquerade.create(host.netns, NEXT, SECOND)
    masquerade.expect(host.netns, [*MINE, *NEXT], FIRST)
    assert [rule for rule in saved(host) if "ACCEPT" in rule or "MASQ" in rule] == [
        f"-A {CHAIN} -d 10.22.0.0/24 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} -d 10.33.0.0/24 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} ! -d 224.0.0.0/4 {COMMENT} -j MASQUERADE",
    ]
    if known:
        masquerade.delete(host.netns, SECOND, NEXT)
    else:
        masquerade.delete(host.netns, SECOND, kept=cidrs("127.0.0.1/8", "10.22.0.2/24", "fd00:22::2/64"))
    masquerade.expect(host.netns, MINE, FIRST)
    assert saved(host) == SHAPE_4
    assert saved(host, 6) == SHAPE_6
    masquerade.delete(host.netns, FIRST, MINE)
    assert chains(host) == set()


def test_an_add_that_fails_takes_only_its_own_back(host: Host) -> None:
    masquerade.create(host.netns, MINE, FIRST)
    call = NetnsHandle(OWN, Journal())
    with pytest.raises(CniError, match="boom"), call.journal:
        masquerade.create(call, NEXT, SECOND)
        raise CniError("boom")
    call.close()
    assert saved(host) == SHAPE_4
    assert saved(host, 6) == SHAPE_6


def test_r08_r09_what_is_not_known_is_found_by_its_chain(host: Host) -> None:
    masquerade.create(host.netns, [*MINE, *NEXT], FIRST)
    masquerade.create(host.netns, cidrs("10.22.0.9/24"), OTHER)
    masquerade.delete(host.netns, FIRST)
    masquerade.expect(host.netns, cidrs("10.22.0.9/24"), OTHER)
    assert len(saved(host)) == 3
    assert saved(host, 6) == []


def test_r48_a_call_is_one_process_a_family(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = Table._run

    def run(table: Table, command: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
        started.append(Path(command[0]).name)
        return real(table, command, stdin)

    monkeypatch.setattr(Table, "_run", run)
    for call in (masquerade.create, masquerade.expect):
        call(host.netns, MINE, FIRST)
        assert len(started) == 2
        assert all("-restore" in program for program in started)
        started.clear()
    masquerade.delete(host.netns, FIRST, MINE)
    assert len(started) == 2


def test_nothing_is_started_where_iptables_was_never_used(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_run", lambda *_: pytest.fail("a process was started"))
    masquerade.delete(host.netns, FIRST)
    masquerade.delete(host.netns, FIRST, MINE)
    masquerade.delete(host.netns, Stale("mynet", [OTHER]))


def test_rules_of_before_2017_go_too(host: Host) -> None:
    host.run(f"iptables -t nat -N {CHAIN} && iptables -t nat -A POSTROUTING -s 10.22.0.2/24 {COMMENT} -j {CHAIN}")
    masquerade.create(host.netns, MINE, FIRST)
    masquerade.delete(host.netns, FIRST, MINE)
    assert chains(host) == set()
    assert saved(host) == []


def test_what_somebody_left_is_made_whole_by_the_next_add(host: Host) -> None:
    """A Go DEL of one of two interfaces flushes the chain and fails (R-07); doubled jumps come from races (R-16)."""
    masquerade.create(host.netns, MINE, FIRST)
    host.run(f"iptables -t nat -F {CHAIN} && iptables -t nat -A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}")
    with pytest.raises(CniError, match=r"masquerading of 10\.22\.0\.2 is missing in iptables"):
        masquerade.expect(host.netns, MINE, FIRST)
    masquerade.create(host.netns, MINE, FIRST)
    masquerade.expect(host.netns, MINE, FIRST)
    assert sorted(saved(host)) == sorted(SHAPE_4)


@pytest.mark.exhaustive
def test_two_hundred_parallel_adds_end_without_error_or_duplicate(host: Host) -> None:
    own = host.netns

    def add(number: int) -> None:
        own.enter_permanently()  # a thread starts where the process is
        call = NetnsHandle(OWN, Journal())
        masquerade.create(
            call, cidrs(f"10.22.0.{number}/16", f"fd00:22::{number}/64"), Owner("mynet", str(number), "eth0")
        )
        call.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(200)))
    for version in (4, 6):
        rules = saved(host, version)
        assert len(rules) == len(set(rules)) == 600


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        ("iptables -t nat -D POSTROUTING 1", "-A POSTROUTING -s 10.22.0.2/32"),
        (f"iptables -t nat -D {CHAIN} 1", f"-A {CHAIN} -d 10.22.0.0/24"),
        (f"iptables -t nat -D {CHAIN} 2", "MASQUERADE"),
        (f"iptables -t nat -F && iptables -t nat -X {CHAIN}", "there is no"),
        ("ip6tables -t nat -D POSTROUTING 1", "-A POSTROUTING -s fd00:22::2/128"),
    ],
)
def test_check_names_the_rule_that_is_missing(host: Host, damage: str, missing: str) -> None:
    masquerade.create(host.netns, MINE, FIRST)
    host.run(damage)
    with pytest.raises(CniError, match="is missing in iptables: there is no") as caught:
        masquerade.expect(host.netns, MINE, FIRST)
    assert missing in str(caught.value)


def test_gc_takes_the_chains_of_containers_that_are_gone(host: Host) -> None:
    stranger = Owner("othernet", "cid-2", "eth0")
    masquerade.create(host.netns, MINE, FIRST)
    masquerade.create(host.netns, NEXT, OTHER)
    masquerade.create(host.netns, cidrs("10.44.0.2/24"), stranger)
    host.run("iptables -t nat -N CNI-0123456789abcdef01234567")  # nobody can tell whose
    masquerade.delete(host.netns, Stale("mynet", [FIRST]))
    masquerade.expect(host.netns, MINE, FIRST)
    masquerade.expect(host.netns, cidrs("10.44.0.2/24"), stranger)
    assert chains(host) == {CHAIN, stranger.container_name("CNI-", 28), "CNI-0123456789abcdef01234567"}
    masquerade.delete(host.netns, Stale("mynet", []))
    assert CHAIN not in chains(host)


def test_the_backends_choice(host: Host) -> None:
    choice.create(host.netns, MINE, FIRST, "iptables")
    choice.create(host.netns, MINE, OTHER)
    for backend in ("", "iptables"):
        choice.expect(host.netns, MINE, FIRST, backend)
    for backend in ("", "nftables"):
        choice.expect(host.netns, MINE, OTHER, backend)
    with pytest.raises(CniError, match="is missing in nftables"):
        choice.expect(host.netns, MINE, FIRST, "nftables")
    with pytest.raises(CniError, match="is missing in iptables"):
        choice.expect(host.netns, MINE, OTHER, "iptables")
    with pytest.raises(CniError, match="is missing in nftables"):
        choice.expect(host.netns, NEXT, FIRST)
    for owner in (FIRST, OTHER):
        choice.delete(host.netns, owner)
    assert host.netns.journal.failures == []
    assert chains(host) == set()
    assert "10.22.0.2" not in host.run("nft list ruleset")
    assert "10.22.0.3" not in host.run("nft list ruleset")
    choice.delete(host.netns, Stale("mynet", []))
    assert "10.22.0" not in host.run("nft list ruleset")


GO_TABLE = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.22.0.2 ip daddr != 10.22.0.0/24 masquerade comment "%(mine)s"
        ip6 saddr fd00:22::2 ip6 daddr != fd00:22::/64 masquerade comment "%(mine)s"
        ip saddr 10.22.0.3 ip daddr != 10.22.0.0/24 masquerade comment "%(other)s"
    }
    chain postrouting { type nat hook postrouting priority srcnat; goto masq_checks; }
}
"""


def test_what_a_go_plugin_made_in_nftables_is_accepted_and_removed(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "go.nft"
    script.write_text(GO_TABLE % {"mine": FIRST.label, "other": OTHER.label})
    host.run(f"nft -f {script}")
    choice.expect(host.netns, MINE, FIRST)
    choice.expect(host.netns, MINE, FIRST, "nftables")
    with pytest.raises(CniError, match=r"masquerading of 10\.22\.0\.3 is missing"):
        choice.expect(host.netns, NEXT, FIRST)
    choice.delete(host.netns, FIRST, MINE)
    assert _comments(host) == [OTHER.label]
    choice.delete(host.netns, Stale("mynet", [OTHER]))
    assert _comments(host) == [OTHER.label]
    choice.delete(host.netns, Stale("mynet", []))
    assert _comments(host) == []


def _comments(host: Host) -> list[str]:
    objects = json.loads(host.run("nft -j list chain inet cni_plugins_masquerade masq_checks"))["nftables"]
    return [item["rule"]["comment"] for item in objects if "rule" in item]
