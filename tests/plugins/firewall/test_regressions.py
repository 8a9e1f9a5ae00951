"""firewall: regression tests, mostly for faults of the Go plugin (docs/reference/plugins.md#firewall)."""

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for
from tests.conftest import run_concurrently

from .conftest import Pod

MakePod = Callable[..., Pod]
BACKENDS = ["nftables", "iptables"]


def rules(host: Host, chain: str = "CNI-") -> list[str]:
    """Return the rules of iptables and ip6tables, of the chosen variant, that are in or jump to these chains."""
    lines = [line for family in ("ip", "ip6") for line in host.run(f"{family}tables-save -t filter").splitlines()]
    return [line for line in lines if line.startswith("-A") and chain in line]


def elements(host: Host) -> list[str]:
    """Return the lines of pycni's nftables tables that contain the label of an attachment."""
    return [line for line in host.run("nft list ruleset").splitlines() if "net: test" in line]


def isolation_elements(host: Host) -> str:
    """Return the lines of pycni's nftables tables about isolated bridges and ports."""
    kinds = {"fenced": "set", "own": "set", "apart": "set", "fences": "map", "walls": "map"}
    commands = [f"nft list {kind} inet pycni {name}" for name, kind in kinds.items()]
    listings = [host.run(command, check=False) for command in (*commands, "nft list table bridge pycni")]
    return "".join(line for line in "".join(listings).splitlines() if '"' in line)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gc_removes_rules_without_a_valid_attachment(pod: MakePod, backend: str) -> None:
    config = {"backend": backend, "ingressPolicy": "isolated"}
    alive, other = pod(1, 2, **config), pod(2, 2, **config, name="other")
    dead = pod(3, 2, **config)
    dead.host.run("ip link del br3")
    alive.firewall.gc(alive.firewall)
    assert dead.addresses[4] not in host_text(alive.host)
    assert dead.addresses[6] not in host_text(alive.host)
    assert "br3" not in host_text(alive.host)
    alive.firewall.check()
    other.firewall.check()


def host_text(host: Host) -> str:
    return "\n".join([*rules(host), host.run("nft list ruleset")])


def test_gc_without_valid_attachments_key_removes_nothing(pod: MakePod) -> None:
    one = pod(1, 2, ingressPolicy="isolated")
    one.firewall._call("GC")
    one.firewall.check()


def test_status_fails_with_code_50_if_the_backend_is_unavailable(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:

    for backend in ("", *BACKENDS):
        PluginRunner("firewall", container, backend=backend).status()
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    for backend, message in (("iptables", "iptables is not available"), ("firewalld", "firewalld is not available")):
        with pytest.raises(CniError, match=message) as caught:
            PluginRunner("firewall", container, backend=backend).status()
        assert caught.value.code == 50
        assert caught.value.details
    PluginRunner("firewall", container).status()


def test_add_succeeds_after_a_failed_add(pod: MakePod) -> None:
    unrestricted = pod(1, 2, with_firewall=False)
    unrestricted.host.run("ip link set br1 down && ip link set br1 name br9")
    runner = PluginRunner(
        "firewall", unrestricted.container, previous=unrestricted.network.result, ingressPolicy="isolated"
    )
    with pytest.raises(CniError, match='"br1": there is no such link'):
        runner.add()
    assert elements(unrestricted.host) == []
    unrestricted.host.run("ip link set br9 name br1 && ip link set br1 up")
    runner.add()
    runner.check()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "damage",
    [
        {"backend": "gone"},
        {"ingressPolicy": "closed"},
        {"iptablesAdminChainName": 7},
        {"firewalldZone": []},
        {"prevResult": {"cniVersion": "1.1.0", "ips": "none"}},
    ],
)
def test_del_succeeds_with_an_invalid_configuration(pod: MakePod, backend: str, damage: dict[str, Any]) -> None:
    one = pod(1, 2, backend=backend, ingressPolicy="isolated")
    one.firewall.config |= damage
    one.firewall.forget()
    one.firewall.delete()
    assert elements(one.host) == []
    assert [rule for rule in rules(one.host) if "10.1.0.2" in rule or "fd00:1::2" in rule or "br1" in rule] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_add_adds_no_rule(pod: MakePod, backend: str) -> None:
    one = pod(1, 2, backend=backend, ingressPolicy="isolated")
    once = sorted(rules(one.host)), sorted(elements(one.host))
    one.firewall.add()
    assert (sorted(rules(one.host)), sorted(elements(one.host))) == once


GO_1_9_RULES = """
-A FORWARD -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)" -j CNI-ISOLATION-STAGE-1
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -d {ip} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s {ip} -j ACCEPT
-A CNI-ISOLATION-STAGE-1 -i br1 -o br1 -m comment --comment "CNI firewall plugin rules (ingressPolicy: isolated)" -j DROP
-A CNI-ISOLATION-STAGE-1 -i br1 ! -o br1 -m comment --comment "CNI firewall plugin rules (ingressPolicy: isolated)" -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-1 -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)" -j RETURN
-A CNI-ISOLATION-STAGE-2 -o br1 -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)" -j DROP
-A CNI-ISOLATION-STAGE-2 -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)" -j RETURN
"""  # noqa: E501 - output of iptables-save


@pytest.mark.usefixtures("iptables")
def test_iptables_rules_are_those_of_the_go_plugin_1_9(pod: MakePod) -> None:
    one = pod(1, 2, backend="iptables", ingressPolicy="isolated")
    for family, ip in (("ip", "10.1.0.2/32"), ("ip6", "fd00:1::2/128")):
        lines = one.host.run(f"{family}tables-save -t filter").splitlines()
        wanted = GO_1_9_RULES.format(ip=ip).split("\n")[1:-1]
        assert sorted(line for line in lines if line.startswith("-A")) == sorted(wanted)
        for chain in ("FORWARD", "CNI-FORWARD", "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"):
            start = f"-A {chain} "
            assert [line for line in lines if line.startswith(start)] == [r for r in wanted if r.startswith(start)]


@pytest.mark.parametrize(
    "policy", [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("", "same-bridge")] + ["isolated"]
)
@pytest.mark.exhaustive
@pytest.mark.usefixtures("iptables")
def test_16_concurrent_first_adds_create_each_shared_rule_once(pod: MakePod, policy: str) -> None:
    """containernetworking/plugins#418 and #683."""
    pods = [pod(1, last, with_firewall=False) for last in range(2, 18)]
    host = pods[0].host

    def add(one: Pod) -> PluginRunner:
        config = {"backend": "iptables", "ingressPolicy": policy}
        runner = PluginRunner("firewall", one.container, previous=one.network.result, **config)
        runner.add()
        return runner

    runners = run_concurrently(host, add, pods)
    counts = Counter(rules(host))
    shared = {rule: count for rule, count in counts.items() if "/32" not in rule and "/128" not in rule}
    # Each shared rule exists once per family; the rules of addresses differ.
    assert set(shared.values()) == {2}, shared
    assert len(shared) == {"": 2, "same-bridge": 7, "isolated": 8}[policy]
    assert len(counts) - len(shared) == 16 * 4
    for runner in runners:
        runner.check()
    run_concurrently(host, PluginRunner.delete, runners)
    assert [rule for rule in rules(host) if "/32" in rule or "/128" in rule] == []


def test_16_concurrent_first_adds_with_nftables(pod: MakePod) -> None:
    pods = [pod(1, last, with_firewall=False) for last in range(2, 18)]
    host = pods[0].host

    def add_check_delete(one: Pod) -> None:
        runner = PluginRunner("firewall", one.container, previous=one.network.result, ingressPolicy="isolated")
        runner.add()
        runner.check()
        runner.delete()

    run_concurrently(host, add_check_delete, pods)
    assert elements(host) == []
    assert isolation_elements(host) == ""
    assert host.run("nft list chain inet pycni forward").count("vmap") == 4


@pytest.mark.usefixtures("iptables")
def test_duplicate_rules_of_concurrent_go_adds_are_removed(pod: MakePod) -> None:
    """containernetworking/plugins#418 and #683: concurrent ADDs of the Go plugin leave the rules of a bridge twice."""
    one = pod(1, 2, backend="iptables", ingressPolicy="same-bridge")
    before = sorted(rules(one.host))
    shared = [rule for rule in before if "/32" not in rule and "/128" not in rule]
    for rule in dict.fromkeys(shared):
        one.host.run(f"iptables {rule.replace('-A', '-I', 1)} && ip6tables {rule.replace('-A', '-I', 1)}")
    assert sorted(rules(one.host)) != before
    pod(1, 3, backend="iptables", ingressPolicy="same-bridge").delete()
    one.host.run("iptables -D CNI-FORWARD -j CNI-ADMIN -m comment --comment 'CNI firewall plugin admin overrides'")
    pod(1, 4, backend="iptables", ingressPolicy="same-bridge").delete()
    left = Counter(rules(one.host))
    assert {rule: count for rule, count in left.items() if "STAGE" in rule and count != 2} == {}
    targets = [rule.rsplit(" ", 1)[1] for rule in one.host.run("iptables -S FORWARD").splitlines()[1:]]
    assert targets[0] == "CNI-ISOLATION-STAGE-1"


def test_empty_backend_selects_the_default(pod: MakePod) -> None:
    """podman writes "backend": ""."""
    one = pod(1, 2, backend="")
    one.firewall.check()
    assert len(elements(one.host)) == 4
    assert rules(one.host) == []


def test_nftables_is_used_without_iptables(pod: MakePod, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    one = pod(1, 2, with_firewall=False)
    monkeypatch.setenv("PATH", "/nowhere")
    runner = PluginRunner("firewall", one.container, previous=one.network.result, ingressPolicy="isolated")
    runner.add()
    runner.check()
    runner.delete()
    runner.config["backend"] = "iptables"
    with pytest.raises(CniError, match="iptables is not available") as caught:
        runner.add()
    assert "configure the backend nftables" in caught.value.details


def test_iptables_backend_needs_only_the_program_of_the_address_family(
    pod: MakePod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go: ADD fails without ip6tables even if there is no IPv6 address."""

    (tmp_path / "iptables-restore").symlink_to("/usr/sbin/xtables-nft-multi")
    (tmp_path / "iptables-save").symlink_to("/usr/sbin/xtables-nft-multi")
    one = pod(1, 2, with_firewall=False)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    previous = {**(one.network.result or {}), "ips": [{"address": "10.1.0.2/24", "interface": 2}]}
    runner = PluginRunner("firewall", one.container, previous=previous, backend="iptables")
    runner.add()
    runner.check()


@pytest.mark.parametrize("backend", BACKENDS)
def test_isolation_rules_are_removed_with_the_last_pod_of_the_bridge(pod: MakePod, backend: str) -> None:
    config = {"backend": backend, "ingressPolicy": "same-bridge"}
    one, two, other = pod(1, 2, **config), pod(1, 3, **config), pod(2, 2, **config)
    one.delete()
    assert not two.reaches(other.addresses)
    two.delete()
    assert '"br1"' not in isolation_elements(one.host)
    assert [rule for rule in rules(one.host) if "br1" in rule] == []
    other.firewall.check()


@pytest.mark.parametrize("backend", BACKENDS)
def test_changed_ingress_policy_takes_effect(pod: MakePod, backend: str) -> None:
    config: dict[str, Any] = {"backend": backend}
    one, two = (pod(1, last, **config, ingressPolicy="isolated") for last in (2, 3))
    assert not one.reaches(two.addresses)
    for each in (one, two):
        each.firewall.delete()
        each.firewall.config["ingressPolicy"] = "same-bridge"
        each.firewall.add()
    assert one.reaches(two.addresses)
    one.firewall.check()
    for each in (one, two):
        each.firewall.delete()
        each.firewall.config["ingressPolicy"] = "isolated"
        each.firewall.add()
    assert not one.reaches(two.addresses)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stricter_policy_of_a_later_pod_applies_to_earlier_pods(pod: MakePod, backend: str) -> None:
    one = pod(1, 2, backend=backend, ingressPolicy="same-bridge")
    two = pod(1, 3, backend=backend, ingressPolicy="isolated")
    assert not one.reaches(two.addresses)
    assert not two.reaches(one.addresses)


def test_strictest_policy_of_the_networks_on_a_bridge_applies(host: Host, pod: MakePod) -> None:
    host.run("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
    strict = pod(1, 2, name="strict", ingressPolicy="isolated")
    lax = [pod(1, last, name="lax", ingressPolicy="same-bridge") for last in (3, 4)]
    other = pod(2, 2, name="strict", ingressPolicy="same-bridge")
    assert not lax[0].reaches(strict.addresses)
    assert lax[0].reaches(lax[1].addresses)
    strict.delete()
    assert lax[0].reaches(lax[1].addresses)
    assert not lax[0].reaches(other.addresses), "DEL of another network's pod keeps the isolation"
    lax[0].firewall.check()


def test_del_removes_the_rules_of_both_backends_after_a_change_of_backend(pod: MakePod) -> None:
    one = pod(1, 2, backend="iptables", ingressPolicy="isolated")
    one.firewall.config["backend"] = "nftables"
    with pytest.raises(CniError, match="is missing in nftables"):
        one.firewall.check()
    one.firewall.config["backend"] = ""
    one.firewall.check()
    one.firewall.delete()
    assert elements(one.host) == []
    assert [rule for rule in rules(one.host) if "10.1.0.2" in rule or "br1" in rule] == []


def test_gc_removes_rules_of_deleted_bridges(pod: MakePod) -> None:
    deleted, remaining = (pod(number, 2, backend="iptables", ingressPolicy="same-bridge") for number in (1, 2))
    deleted.host.run("ip link del br1")
    remaining.firewall.gc(deleted.firewall, remaining.firewall)
    assert [rule for rule in rules(remaining.host) if "br1" in rule] == []
    remaining.firewall.check()


@pytest.mark.parametrize("with_prev_result", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_late_del_keeps_the_rules_of_the_next_container_with_the_address(
    pod: MakePod, backend: str, *, with_prev_result: bool
) -> None:
    """Azure/azure-container-networking#885: IPAM reassigned the address of a lost container."""
    old = pod(1, 2, backend=backend)
    new = PluginRunner("firewall", Container(old.host), previous=old.network.result, backend=backend)
    new.add()
    if not with_prev_result:
        old.firewall.forget()
    old.firewall.delete()
    new.check()
    new.container.close()


@pytest.fixture
def iptables_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the iptables programs by wrappers and return a file with one line per call."""
    programs, log = tmp_path / "counted", tmp_path / "processes"
    programs.mkdir()
    for name in ("iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"):
        for variant in ("", "-nft"):
            program = programs / name.replace("tables", f"tables{variant}")
            real = f"/usr/sbin/{name.replace('tables', 'tables-nft')}"
            program.write_text(f'#!/bin/sh\necho "$0" >> {log}\nexec {real} "$@"\n')
            program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    log.touch()
    return log


def test_iptables_runs_once_per_call_and_family(pod: MakePod, iptables_calls: Path) -> None:
    """Go: every ADD runs ten processes, and each takes the lock."""
    pod(1, 2, backend="iptables")  # creates the shared rules
    iptables_calls.write_text("")
    one = pod(1, 3, backend="iptables")
    assert len(iptables_calls.read_text().split()) == 2
    iptables_calls.write_text("")
    one.firewall.check()
    assert len(iptables_calls.read_text().split()) == 2
    iptables_calls.write_text("")
    one.firewall.delete()
    assert len(iptables_calls.read_text().split()) == 4  # also looks for rules of other programs for the address
    iptables_calls.write_text("")
    one.firewall.delete()
    assert len(iptables_calls.read_text().split()) == 2  # finds none
    iptables_calls.write_text("")
    pod(2, 2, backend="nftables", ingressPolicy="isolated").delete()
    assert iptables_calls.read_text() == ""


def test_nftables_backend_starts_no_process(pod: MakePod, iptables_calls: Path) -> None:
    one = pod(1, 2, ingressPolicy="isolated")
    one.firewall.check()
    one.firewall.delete()
    one.firewall.gc()
    assert iptables_calls.read_text() == ""


DAMAGE = {
    "nftables": [
        ("delete element inet pycni from4 '{ 10.1.0.2 }'", r"forwarding of 10\.1\.0\.2 is missing in .*from4"),
        ("flush set inet pycni to6", r"forwarding of fd00:1::2 is missing in .*to6"),
        ("flush chain inet pycni forward", "chain forward of nftables table inet pycni has 0 of its 9 rules"),
        ("flush chain inet pycni from-CNI-ADMIN", "chain from-CNI-ADMIN .* has 0 of its 3 rules"),
        ("flush chain inet pycni fence", "chain fence of .* has 0 of its 2 rules"),
        ("flush set inet pycni fenced", 'isolation of br1 is missing .*: set fenced has no element "br1"'),
        ("flush set inet pycni apart", 'isolation of br1 is missing .*: set apart has no element "br1" . "br1"'),
        ("flush map inet pycni walls", "isolation of .* is missing .*, set walls"),
        ("flush set bridge pycni isolated", "isolation of .* is missing"),
        ("delete table inet pycni", r"forwarding of 10\.1\.0\.2 is missing"),
    ],
    "iptables": [
        ("-D CNI-FORWARD -s 10.1.0.2 -j ACCEPT", r"expected rule \[-s 10\.1\.0\.2/32 -j ACCEPT\] not found"),
        (
            "-D CNI-FORWARD -d 10.1.0.2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            r"expected rule \[-d 10\.1\.0\.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\] not found",
        ),
        ("-F FORWARD", r"expected rule \[-m comment --comment .* -j CNI-FORWARD\] not found"),
        ("-F CNI-FORWARD", r"expected rule \[-m comment .* -j CNI-ADMIN\] not found"),
        ("-F FORWARD; iptables -F CNI-FORWARD; iptables -X CNI-FORWARD", "expected rule .* not found"),
        ("-F CNI-ISOLATION-STAGE-2", 'isolation of br1 is missing in iptables: there is no "-A .*STAGE-2'),
        ("-F CNI-ISOLATION-STAGE-1", "isolation of br1 is missing in iptables"),
    ],
}
PROGRAM = {"nftables": "nft", "iptables": "iptables"}


@pytest.mark.parametrize(
    ("backend", "damage", "message"),
    [(backend, *case) for backend, cases in DAMAGE.items() for case in cases],
)
def test_check_reports_the_missing_rule_or_element(pod: MakePod, backend: str, damage: str, message: str) -> None:
    one = pod(1, 2, backend=backend, ingressPolicy="isolated")
    one.host.run("sysctl -qw net.bridge.bridge-nf-call-iptables=0")
    one.firewall.check()
    one.host.run(f"{PROGRAM[backend]} {damage}")
    with pytest.raises(CniError, match=message):
        one.firewall.check()


@pytest.mark.parametrize(
    "fault", ["addresses", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("zone", "reload"))]
)
@pytest.mark.usefixtures("firewalld")
def test_check_fails_if_firewalld_lacks_a_source(pod: MakePod, fault: str) -> None:
    """Go: CHECK asks firewalld and ignores the answer."""
    one = pod(1, 2)
    one.firewall.check()
    match fault:
        case "addresses":
            one.host.run("firewall-cmd -q --zone=trusted --remove-source=fd00:1::2/128")
        case "zone":
            one.host.run("firewall-cmd -q --zone=drop --change-source=fd00:1::2/128")
        case _:
            one.host.run("firewall-cmd -q --reload")
    with pytest.raises(CniError, match="failed to find the address .* in trusted zone"):
        one.firewall.check()
    one.firewall.config["backend"] = "firewalld"
    with pytest.raises(CniError, match="failed to find the address .* in trusted zone"):
        one.firewall.check()


@pytest.mark.usefixtures("firewalld")
def test_add_reports_the_error_of_firewalld(pod: MakePod) -> None:
    one = pod(1, 2)
    one.firewall.add()  # ZONE_ALREADY_SET is not an error
    with pytest.raises(CniError, match="failed to add the address 10.1.0.3/32 to nowhere zone: INVALID_ZONE"):
        pod(1, 3, firewalldZone="nowhere")
    one.host.run("firewall-cmd -q --zone=work --add-source=10.1.0.4/32")
    with pytest.raises(CniError, match="10.1.0.4/32 to trusted zone: ZONE_CONFLICT"):
        pod(1, 4)
    assert "10.1.0.4/32" in firewalld_sources(one.host, "work")


def firewalld_sources(host: Host, zone: str) -> list[str]:
    return host.run(f"firewall-cmd --zone={zone} --list-sources").split()


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "nonsense"])
def test_firewalld_backend_fails_without_a_system_bus(
    pod: MakePod, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    one = pod(1, 2, with_firewall=False)
    runner = PluginRunner("firewall", one.container, previous=one.network.result, backend="firewalld")
    with pytest.raises(CniError, match=f"firewalld is not available: there is no system bus at {address}") as caught:
        runner.add()
    assert caught.value.code == 50
    assert elements(one.host) == []
    runner.result = one.network.result
    runner.delete()
    runner.config["backend"] = ""
    runner.add()
    assert len(elements(one.host)) == 4


@pytest.mark.usefixtures("firewalld")
def test_firewalld_of_another_network_namespace_is_ignored(pod: MakePod, host: Host, tmp_path: Path) -> None:
    """A nested runtime can see the bus of the outer host, whose firewalld does not manage the inner host."""
    from pycni.kernel.firewall.firewalld import zones

    assert zones.is_running(host.netns)
    other = Container(host)
    fake_firewalld = subprocess.Popen(
        ["python3", "-c", "import time; time.sleep(600)  # firewalld"], stdin=subprocess.DEVNULL
    )
    bus = _FixedBus(fake_firewalld.pid)
    try:
        wait_for(
            lambda: b"firewalld" in Path(f"/proc/{fake_firewalld.pid}/cmdline").read_bytes(),
            "the command line of the fake firewalld",
        )
        assert zones._manages(host.netns, bus)
        assert not zones._manages(other.netns, bus)
    finally:
        fake_firewalld.kill()
        fake_firewalld.wait()
        other.close()


class _FixedBus:
    """A bus on which this process owns firewalld's name."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def ask(self, _method: str) -> tuple[int]:
        return (self._pid,)


@pytest.mark.usefixtures("iptables")
def test_isolation_without_nftables_needs_bridge_nf_call_iptables(
    pod: MakePod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only nftables can isolate the ports of a bridge directly."""
    from pycni.kernel.firewall.nftables import nft

    one, two = (pod(1, last, with_firewall=False) for last in (2, 3))
    monkeypatch.setattr(nft, "_LIBRARY", "nothing.so")
    nft._load.cache_clear()
    monkeypatch.setattr(nft.Program, "_nft", _no_program)
    config = {"backend": "iptables", "ingressPolicy": "isolated"}
    runners = [PluginRunner("firewall", each.container, previous=each.network.result, **config) for each in (one, two)]
    one.host.run("sysctl -qw net.bridge.bridge-nf-call-iptables=0")
    with pytest.raises(CniError, match="cannot isolate the ports of br1") as caught:
        runners[0].add()
    assert "br_netfilter" in caught.value.details
    one.host.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    for runner in runners:
        runner.add()
        runner.check()
    assert not one.reaches(two.addresses)
    for each, runner in zip((one, two), runners, strict=True):
        runner.delete()
        each.network.delete()
    assert [rule for rule in rules(one.host) if "10.1.0." in rule or "br1" in rule] == []


def _no_program(*_: object) -> str:
    from pycni.kernel.firewall.nftables.nft import NftUnavailableError

    raise NftUnavailableError


def test_isolated_policy_supports_ptp(host: Host, container: Container) -> None:
    """The first interface of prevResult is the host end of the veth pair. It counts as a bridge with one pod."""
    host.run(f"ip link add veth1 type veth peer name eth0 netns {container.path}")
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": container.path}],
        "ips": [{"address": "10.1.0.2/24", "interface": 1}],
    }
    for backend in BACKENDS:
        runner = PluginRunner("firewall", container, previous=previous, backend=backend, ingressPolicy="isolated")
        runner.add()
        runner.check()
        runner.delete()
    assert isolation_elements(host) == ""
    assert [rule for rule in rules(host) if "veth1" in rule] == []
