"""portmap: regression tests, mostly for faults of the Go plugin (docs/reference/plugins.md#portmap)."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from pycni.kernel import scheduling
from pycni.kernel.firewall.iptables.listing import Listing
from pycni.kernel.firewall.iptables.restore import IptablesError, Table
from pycni.kernel.firewall.nftables import nft
from pycni.kernel.journal import watching
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, query_whoami, run_whoami, transport, wait_for
from tests.conftest import run_concurrently

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}
by_backend = pytest.mark.parametrize("backend", ["nftables", "iptables"])
SHARED = {
    "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    '-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
    '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
    "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
}


def result(container: Container, last: int = 2, *, ifname: str = "eth0", net: int = 1) -> dict[str, Any]:
    """Return a result as a plugin before portmap returns it."""
    return {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": ifname, "sandbox": container.path}],
        "ips": [
            {"address": f"10.{net}.0.{last}/24", "interface": 0},
            {"address": f"fd00:{net}::{last}/64", "interface": 0},
        ],
    }


def portmap_runner(
    container: Container,
    *mappings: dict[str, Any],
    last: int = 2,
    ifname: str = "eth0",
    net: int = 1,
    runner_class: type[PluginRunner] = PluginRunner,
    **config: Any,
) -> PluginRunner:
    """Return a runner of portmap before its ADD, for a container whose addresses end in `last`."""
    container.host.run(
        "ip link add br0 type bridge && ip addr add 10.1.0.1/24 dev br0 && ip link set br0 up", check=False
    )
    previous_result = result(container, last, ifname=ifname, net=net)
    runner = runner_class(
        "portmap",
        container,
        ifname=ifname,
        **{"runtimeConfig": {"portMappings": list(mappings)}, "prevResult": previous_result, **config},
    )
    runner.result = previous_result
    return runner


def rules(host: Host, container: Container) -> list[str]:
    """Return the lines of nftables and iptables that name this container."""
    lines = host.run("nft list ruleset; iptables-save; ip6tables-save").splitlines()
    chain = PluginRunner("portmap", container).owner.container_name("CNI-DN-", 28)
    return [line for line in lines if container.id in line or chain in line]


def failing_at(start: str) -> Callable[[str], AbstractContextManager[None]]:
    """Return a journal watcher that fails the change whose description starts with `start`."""

    @contextmanager
    def watch(what: str) -> Iterator[None]:
        if what.startswith(start):
            raise CniError("injected failure")
        yield

    return watch


def drop_mappings_and_results(runner: PluginRunner) -> None:
    """Remove mappings and prevResult from the runner, as if the runtime had lost them."""
    runner.config["runtimeConfig"] = {}
    runner.forget()
    runner.config.pop("prevResult", None)


@by_backend
def test_gc_removes_ports_without_a_valid_attachment(containers: list[Container], backend: str) -> None:
    host = containers[0].host
    _, dead, other_network = containers
    runners = [
        portmap_runner(c, {**WEB, "hostPort": 8080 + n}, last=2 + n, backend=backend) for n, c in enumerate(containers)
    ]
    runners[2].config["name"] = "other"
    for runner in runners:
        runner.add()
    runners[0].gc(runners[0])
    assert rules(host, dead) == []
    assert rules(host, other_network)
    runners[0].check()
    runners[2].check()


@by_backend
def test_refused_add_leaves_no_rules_and_keeps_the_holders(containers: list[Container], backend: str) -> None:
    """cri-o/cri-o#1538: the second container takes the port silently, or leaves a rule."""
    first, second, _ = containers
    holder = portmap_runner(first, WEB, backend=backend)
    holder.add()
    late = portmap_runner(second, {**WEB, "hostPort": 9090}, WEB, last=3, backend=backend)
    with pytest.raises(
        CniError, match=rf"host port tcp/8080 is already mapped to .*container {first.id}.*network \"test\""
    ) as caught:
        late.add()
    assert caught.value.code == 11
    assert rules(first.host, second) == []
    holder.check()
    holder.delete()
    late.add()
    late.check()


@by_backend
def test_refused_repeated_add_keeps_the_first_mappings(containers: list[Container], backend: str) -> None:
    first, second, _ = containers
    holder = portmap_runner(first, WEB, backend=backend)
    holder.add()
    portmap_runner(second, {**WEB, "hostPort": 9090}, last=3, backend=backend).add()
    with pytest.raises(CniError, match="host port tcp/9090 is already mapped"):
        portmap_runner(first, {**WEB, "hostPort": 9090}, backend=backend).add()
    holder.check()


@by_backend
@pytest.mark.parametrize("end", ["DEL", "DEL without mappings", "GC", "a failed ADD"])
def test_each_interface_of_a_container_keeps_its_ports(container: Container, backend: str, end: str) -> None:
    host, first = container.host, portmap_runner(container, WEB, DNS, backend=backend)
    second = portmap_runner(container, WEB, {**DNS, "hostPort": 5354}, last=3, ifname="eth1", backend=backend)
    first.add()
    before = rules(host, container)
    if end == "a failed ADD":
        with (
            pytest.raises(CniError, match="injected"),
            watching(failing_at("delete conntrack entries")),
            transport.restarting_server(),
        ):
            second.add()
    else:
        second.add()
        first.check()
        second.check()
    match end:
        case "DEL":
            second.delete()
        case "GC":
            first.gc(first)
        case "DEL without mappings":
            drop_mappings_and_results(second)
            second.delete()
    first.check()
    assert rules(host, container) == before
    third = portmap_runner(container, WEB, {**DNS, "hostPort": 5354}, last=3, ifname="eth1", backend=backend)
    third.add()
    first.delete()
    third.check()
    assert "10.1.0.2" not in "".join(rules(host, container))
    third.delete()
    assert rules(host, container) == []


@pytest.mark.parametrize(("holders_backend", "backend"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_host_port_in_use_by_the_other_backend_is_refused(
    containers: list[Container], holders_backend: str, backend: str
) -> None:
    """Otherwise the rule that was added first would win, for example one of the Go plugin."""
    first, second, third = containers
    holder = portmap_runner(first, WEB, DNS, backend=holders_backend)
    holder.add()
    mappings = {**DNS, "hostPort": 9090}, {**DNS, "hostIP": "10.1.0.1"}
    for late in (
        portmap_runner(second, WEB, last=3, backend=backend),
        portmap_runner(third, *mappings, last=4, backend=backend),
    ):
        with pytest.raises(CniError, match=rf"is already mapped to .*container {first.id}.*network \"test\"") as caught:
            late.add()
        assert caught.value.code == 11
        assert rules(late.container.host, late.container) == []
        free = portmap_runner(late.container, {**WEB, "hostPort": 81}, last=3, backend=backend)
        free.add()
        free.delete()
    other_network = portmap_runner(first, WEB, last=5, backend=backend, net=2)
    other_network.config["name"] = "other"  # the same container: accepted as a second mapping
    other_network.add()
    other_network.delete()
    holder.check()
    holder.delete()
    late.add()
    late.check()


@pytest.mark.direct
def test_add_succeeds_if_iptables_cannot_list_its_rules(
    containers: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_table: Table) -> Listing:
        raise IptablesError("iptables-save", (), "table `nat' is incompatible, use 'nft' tool.")

    portmap_runner(containers[0], WEB, backend="iptables").add()
    monkeypatch.setattr(Table, "listing", refused)
    runner = portmap_runner(containers[1], WEB, last=3)
    runner.add()
    runner.check()


@by_backend
@pytest.mark.parametrize(("first", "second"), [("", "10.1.0.1"), ("10.1.0.1", ""), ("10.1.0.1", "0.0.0.0")])
def test_host_port_of_all_addresses_conflicts_with_that_of_one_address(
    containers: list[Container], first: str, second: str, backend: str
) -> None:
    holder = portmap_runner(containers[0], {**WEB, "hostIP": first}, backend=backend)
    holder.add()
    late = portmap_runner(containers[1], {**WEB, "hostIP": second}, last=3, backend=backend)
    with pytest.raises(CniError, match=rf"is already mapped to .*container {containers[0].id}"):
        late.add()
    assert rules(containers[1].host, containers[1]) == []
    holder.check()


@by_backend
def test_host_port_does_not_conflict_with_other_address_protocol_or_family(
    containers: list[Container], backend: str
) -> None:
    portmap_runner(containers[0], {**WEB, "hostIP": "10.1.0.1"}, backend=backend).add()
    others = [{**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, {**WEB, "hostIP": "::"}]
    late = portmap_runner(containers[1], *others, last=3, backend=backend)
    late.add()
    late.check()


@by_backend
def test_repeated_add_replaces_the_rules(container: Container, backend: str) -> None:
    """Go: every rule exists twice after a repeated ADD."""
    portmap_runner(container, WEB, DNS, backend=backend).add()
    before = rules(container.host, container)
    repeated = portmap_runner(container, {**WEB, "hostPort": 8081}, DNS, backend=backend)
    repeated.add()
    repeated.check()
    after = rules(container.host, container)
    assert len(after) == len(before)
    assert not any("8080" in line for line in after)
    repeated.delete()
    assert rules(container.host, container) == []


@by_backend
def test_stale_mapping_to_the_same_address_is_replaced(containers: list[Container], backend: str) -> None:
    """IPAM has reassigned the address although no DEL was sent."""
    lost, new = (portmap_runner(c, WEB, backend=backend) for c in containers[:2])
    lost.add()
    new.add()
    new.check()
    lost.delete()
    new.check()


@pytest.mark.parametrize("masq_all", [False, True])
def test_container_on_two_networks_has_its_ports_on_both(containers: list[Container], *, masq_all: bool) -> None:
    """podman passes all ports for every network of a container.

    The second mapping takes over when the first is deleted.
    """
    container, other, _ = containers
    first = portmap_runner(container, WEB, name="one", masqAll=masq_all)
    second = portmap_runner(container, WEB, name="two", ifname="eth1", net=2, masqAll=masq_all)
    first.add()
    second.add()
    first.check()
    second.check()
    late = portmap_runner(other, WEB, last=3)
    with pytest.raises(CniError, match="is already mapped"):
        late.add()
    first.delete()
    second.check()
    with pytest.raises(CniError, match="is already mapped"):
        late.add()
    second.delete()
    assert rules(container.host, container) == []
    late.add()


@by_backend
def test_16_concurrent_first_adds_create_each_shared_rule_once(host: Host, backend: str) -> None:
    """containernetworking/plugins#418 and #683."""
    created = [Container(host) for _ in range(16)]
    runners = [
        portmap_runner(c, {**WEB, "hostPort": 8000 + n}, last=2 + n, backend=backend) for n, c in enumerate(created)
    ]
    run_concurrently(host, PluginRunner.add, runners)
    for runner in runners:
        runner.check()
    assert_shared_rules_exist_once(host, backend)
    run_concurrently(host, PluginRunner.delete, runners)
    assert not any(rules(host, container) for container in created)
    assert_shared_rules_exist_once(host, backend)
    for container in created:
        container.close()


@by_backend
@pytest.mark.exhaustive
def test_200_concurrent_adds_succeed_without_duplicate_rules(host: Host, backend: str) -> None:
    created = [Container(host) for _ in range(200)]
    runners = [
        portmap_runner(c, {**WEB, "hostPort": 8000 + n}, last=2 + n, backend=backend) for n, c in enumerate(created)
    ]
    run_concurrently(host, PluginRunner.add, runners)
    assert_shared_rules_exist_once(host, backend)
    if backend == "nftables":
        assert host.run("nft list map inet pycni hostports4").count("comment") == 200
    else:
        assert host.run("iptables-save -t nat").count("-j DNAT") == 200
    for container in created:
        container.close()


def assert_shared_rules_exist_once(host: Host, backend: str) -> None:
    if backend == "nftables":
        assert host.run("nft list chain inet pycni hostport-prerouting").count("jump hostports") == 1
        assert host.run("nft list chain inet pycni hostports").count("@hostports4") == 1
        return
    for program in ("iptables-save", "ip6tables-save"):
        lines = host.run(f"{program} -t nat").splitlines()
        assert {line: lines.count(line) for line in SHARED} == dict.fromkeys(SHARED, 1)


@by_backend
def test_concurrent_adds_for_one_port_succeed_once(containers: list[Container], backend: str) -> None:
    one, other, _ = containers
    wanted = [
        portmap_runner(one, WEB, backend=backend),
        portmap_runner(other, {**WEB, "hostIP": "10.1.0.1"}, last=3, backend=backend),
    ]

    def attempt(runner: PluginRunner) -> bool:
        try:
            runner.add()
        except CniError as error:
            if "is already mapped" not in str(error):
                raise
            return False
        return True

    for _ in range(5):
        assert sorted(run_concurrently(one.host, attempt, wanted)) == [False, True]
        for runner in wanted:
            runner.delete()


@pytest.mark.direct
def test_concurrent_add_keeps_the_route_localnet_that_del_resets(
    containers: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DEL of the last container resets the sysctl while the ADD of a new container needs it."""
    last, new = portmap_runner(containers[0], WEB), portmap_runner(containers[1], {**WEB, "hostPort": 8081}, last=3)
    last.add()
    prefer, try_lock, adds = sysctl.prefer, scheduling.try_lock_file, list[Future[Any]]()
    add_waits = threading.Event()

    def watched_try_lock(fd: int, *, shared: bool) -> bool:
        locked = try_lock(fd, shared=shared)
        if adds and not locked:
            add_waits.set()
        return locked

    monkeypatch.setattr(scheduling, "try_lock_file", watched_try_lock)
    with ThreadPoolExecutor(1) as pool:

        def late(netns: NetnsHandle, wanted: dict[str, str]) -> None:
            adds.append(pool.submit(new.add))
            wait_for(lambda: add_waits.is_set() or adds[0].done(), "the ADD to wait for the lock or to finish")
            prefer(netns, wanted)
            if adds[0].done():
                new.check()

        monkeypatch.setattr(sysctl, "prefer", late)
        last.delete()
    adds[0].result()
    new.check()


@pytest.mark.direct
def test_del_resets_route_localnet_after_a_killed_del(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = portmap_runner(container, WEB)
    runner.add()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sysctl, "prefer", interrupt)
        runner.delete()
    assert '"br0"' in container.host.run("nft list set inet pycni guarded")
    runner.add()
    runner.delete()
    assert '"br0"' not in container.host.run("nft list set inet pycni guarded")
    assert container.host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "0"


@by_backend
@pytest.mark.parametrize("current_backend", ["nftables", "iptables", ""])
def test_del_removes_all_rules_without_mappings_and_with_another_backend(
    container: Container, backend: str, current_backend: str
) -> None:
    runner = portmap_runner(container, WEB, DNS, backend=backend)
    runner.add()
    drop_mappings_and_results(runner)
    runner.config["backend"] = current_backend
    runner.delete()
    assert rules(container.host, container) == []


@by_backend
def test_del_with_changed_mappings_removes_those_of_add(container: Container, backend: str) -> None:
    runner = portmap_runner(container, WEB, DNS, backend=backend)
    runner.add()
    runner.config["runtimeConfig"] = {"portMappings": [WEB, {**WEB, "hostPort": 9999}]}
    runner.delete()
    assert rules(container.host, container) == []


@pytest.mark.parametrize(
    "change",
    [
        {"runtimeConfig": {"portMappings": [{**WEB, "hostPort": 0}]}},
        {"runtimeConfig": {"portMappings": "none"}},
        {"backend": "gone"},
        {"markMasqBit": 99},
        {"externalSetMarkChain": "X", "markMasqBit": 1},
        {"backend": "nftables", "conditionsV4": ["-s", "10.0.0.0/8"]},
        {"prevResult": {"cniVersion": "1.1.0", "ips": "none"}},
    ],
)
def test_del_succeeds_with_an_invalid_configuration(container: Container, change: dict[str, Any]) -> None:
    runner = portmap_runner(container, WEB)
    runner.add()
    runner.config |= change
    runner.forget()
    runner.delete()
    assert rules(container.host, container) == []


def test_conditions_apply_to_one_container_only(containers: list[Container]) -> None:
    """Go: the conditions of the last ADD apply to every container."""
    plain, strict, _ = containers
    first = portmap_runner(plain, WEB)
    first.add()
    second = portmap_runner(strict, {**WEB, "hostPort": 8081}, last=3, conditionsV4=["ip", "saddr", "10.9.0.0/16"])
    second.add()
    for line in plain.host.run("nft list ruleset").splitlines():
        assert ("10.9.0.0/16" in line) == (strict.id in line and "saddr 10.9" in line)
    second.delete()
    first.check()
    assert "10.9.0.0/16" not in plain.host.run("nft list ruleset")


@by_backend
def test_del_of_one_network_keeps_the_ports_of_the_other(container: Container, backend: str) -> None:
    first = portmap_runner(container, WEB, name="one", backend=backend)
    second = portmap_runner(container, {**WEB, "hostPort": 8081}, name="two", ifname="eth1", net=2, backend=backend)
    first.add()
    second.add()
    first.delete()
    second.check()


@pytest.mark.direct
def test_nftables_backend_starts_no_process(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    runner = portmap_runner(container, WEB, DNS)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    runner.add()
    runner.check()
    runner.delete()


def test_transactions_do_not_depend_on_other_containers(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD, CHECK and DEL send the same scripts with and without 2000 other ports."""

    def scripts_of_add_check_and_del() -> list[str]:
        scripts: list[str] = []
        with monkeypatch.context() as context:
            library_run = nft.Library.run
            context.setattr(
                nft.Library, "run", lambda self, script: scripts.append(script) or library_run(self, script)
            )
            for step in (runner.add, runner.check, runner.delete):
                runner.result = runner.config["prevResult"]
                step()
        return scripts

    runner = portmap_runner(container, WEB, DNS)
    runner.add()
    runner.delete()
    scripts_without_others = scripts_of_add_check_and_del()
    others = "".join(
        f"create element inet pycni hostports4 {{ tcp . {n} : 10.7.0.7 . 7 }}\n" for n in range(20000, 22000)
    )
    opened = nft.opened(container.host.netns)
    opened.run(others)
    assert scripts_of_add_check_and_del() == scripts_without_others
    assert not any(
        "list table" in script or "list map inet pycni hostports" in script for script in scripts_without_others
    )


@by_backend
def test_nothing_is_written_to_stderr(container: Container, capfd: pytest.CaptureFixture[str], backend: str) -> None:
    runner = portmap_runner(container, WEB, DNS, backend=backend)
    runner.add()
    runner.check()
    runner.delete()
    runner.delete()
    assert capfd.readouterr().err == ""


CHANGES = [
    ("nftables", "nft delete element inet pycni hostports4 '{ tcp . 8080 }'", r"tcp \. 8080 is missing .*hostports4"),
    ("nftables", "nft delete element inet pycni hostports6 '{ udp . 5353 }'", r"udp \. 5353 is missing .*hostports6"),
    ("nftables", "nft flush set inet pycni hairpin4", r"is missing .*hairpin4"),
    ("nftables", "nft flush chain inet pycni hostports", "chain hostports .* has 0 of its"),
    ("nftables", "nft flush chain inet pycni hostport-postrouting", "chain hostport-postrouting .* has 0 of its 2"),
    ("nftables", "nft flush chain inet pycni martians", "chain martians .* has 0 of its 2 rules"),
    ("nftables", "nft delete table inet pycni", "is missing"),
    ("nftables", "sysctl -q net.ipv4.conf.br0.route_localnet=0", "route_localnet is not 1"),
    (
        "nftables",
        """nft 'delete element inet pycni hostports4 { tcp . 8080 }
        add element inet pycni hostports4 { tcp . 8080 comment "LABEL" : 10.1.0.77 . 80 }'""",
        r"host port tcp \. 8080 is mapped to 10\.1\.0\.77 \. 80, not to 10\.1\.0\.2 \. 80",
    ),
    ("iptables", "iptables -t nat -F CHAIN", "missing in iptables: there is no .*8080"),
    ("iptables", "ip6tables -t nat -F CHAIN", "missing in iptables: there is no .*8080"),
    ("iptables", "iptables -t nat -F CNI-HOSTPORT-DNAT", "there is no .*multiport"),
    ("iptables", "iptables -t nat -F PREROUTING", "there is no .*PREROUTING"),
    ("iptables", "iptables -t nat -F CNI-HOSTPORT-MASQ", "there is no .*MASQUERADE"),
    (
        "iptables",
        "iptables -t nat -R CHAIN 3 -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.77:80",
        "there is no .*10.1.0.2:80",
    ),
]


@pytest.mark.parametrize(("backend", "change", "message"), CHANGES)
def test_check_reports_the_missing_rule_or_element(
    container: Container, backend: str, change: str, message: str
) -> None:
    container.host.run("ip -6 route add fd00:1::/64 dev lo")
    runner = portmap_runner(container, WEB, DNS, backend=backend)
    runner.add()
    runner.result = runner.config["prevResult"]
    runner.check()
    names = {"CHAIN": runner.owner.container_name("CNI-DN-", 28), "LABEL": runner.owner.label}
    for placeholder, name in names.items():
        change = change.replace(placeholder, name)
    container.host.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


def test_check_fails_if_a_conditional_rule_is_missing(container: Container) -> None:
    runner = portmap_runner(container, WEB, conditionsV4=["ip", "saddr", "10.0.0.0/8"])
    runner.add()
    runner.check()
    container.host.run("nft flush chain inet pycni hostport-conditions")
    with pytest.raises(CniError, match=r"the rule for tcp/8080 to 10\.1\.0\.2:80 is missing"):
        runner.check()


@by_backend
def test_status_succeeds_if_the_backend_is_available(container: Container, backend: str) -> None:
    portmap_runner(container, backend=backend).status()


@by_backend
def test_status_fails_with_code_50_if_the_backend_is_unavailable(
    container: Container, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    runner = portmap_runner(container, backend=backend)
    monkeypatch.setattr(nft, "_open", nft.Program)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match=f"{backend} is not available") as caught:
        runner.status()
    assert caught.value.code == 50


@pytest.fixture
def outside_host(host: Host, containers: list[Container]) -> Container:
    """A host outside with the addresses 192.0.2.2 and 198.51.100.2, connected through the host."""
    outside_host = containers[2]
    host.run(f"ip link add up0 type veth peer name eth0 netns {outside_host.path}")
    host.run("ip addr add 192.0.2.1/29 dev up0 && ip link set up0 up && sysctl -q net.ipv4.ip_forward=1")
    outside_host.run("ip addr add 192.0.2.2/29 dev eth0 && ip addr add 198.51.100.2/32 dev eth0 && ip link set eth0 up")
    host.run("ip route add 198.51.100.0/24 via 192.0.2.2")
    wait_for(lambda: outside_host.pings("192.0.2.1"), "the uplink")
    return outside_host


def bridge_result(container: Container, last: int) -> dict[str, Any]:
    ipam = {"type": "static", "addresses": [{"address": f"10.1.0.{last}/24"}]}
    return PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam).add()


def conntrack_entries(host: Host) -> str:
    return host.run("cat /proc/thread-self/net/nf_conntrack")


@by_backend
def test_add_deletes_only_stale_conntrack_entries_of_the_udp_port(
    containers: list[Container], outside_host: Container, backend: str
) -> None:
    """containernetworking/plugins#123 and #705: a client that reuses its source port, and unrelated flows."""
    (container, *_), host = containers, outside_host.host
    host.run("nft 'table ip watch { chain flows { type filter hook prerouting priority 0; ct state new accept; }\n }'")
    client = {"protocol": "udp", "source": ("192.0.2.2", 4000)}
    assert query_whoami(outside_host, "192.0.2.1", 5353, **client, seconds=0.1) == ""
    query_whoami(outside_host, "192.0.2.1", 5354, **client, seconds=0.1)  # another port
    query_whoami(outside_host, "192.0.2.1", 5353, source=("192.0.2.2", 4000), seconds=0.1)  # another protocol
    query_whoami(host, "198.51.100.7", 5353, protocol="udp", seconds=0.1)  # the same port of another host
    before = conntrack_entries(host)
    assert all(text in before for text in ("dport=5353", "dport=5354", "dst=198.51.100.7"))
    result = bridge_result(container, 2)
    runner = PluginRunner(
        "portmap", container, runtimeConfig={"portMappings": [DNS]}, prevResult=result, backend=backend
    )
    with run_whoami(container, 53, "dns", protocol="udp"):
        runner.add()
        assert "dst=192.0.2.1 sport=4000 dport=5354" in conntrack_entries(host)
        assert "dst=198.51.100.7" in conntrack_entries(host)
        assert query_whoami(outside_host, "192.0.2.1", 5353, **client) == "dns 192.0.2.2"


@by_backend
def test_del_deletes_conntrack_entries_of_the_udp_port(
    containers: list[Container], outside_host: Container, backend: str
) -> None:
    """containernetworking/plugins#1190: the next container with the host port is reachable for the same client."""
    old, new, _ = containers
    client = {"protocol": "udp", "source": ("192.0.2.2", 4000)}
    for name, container, last in (("old", old, 2), ("new", new, 3)):
        previous_result = bridge_result(container, last)
        runner = PluginRunner(
            "portmap", container, runtimeConfig={"portMappings": [DNS]}, prevResult=previous_result, backend=backend
        )
        with run_whoami(container, 53, name, protocol="udp"):
            runner.add()
            assert query_whoami(outside_host, "192.0.2.1", 5353, **client) == f"{name} 192.0.2.2"
            drop_mappings_and_results(runner)
            runner.delete()
            assert "dport=5353" not in conntrack_entries(outside_host.host)
            assert query_whoami(outside_host, "192.0.2.1", 5353, **client, seconds=0.1) == ""


def test_late_del_keeps_conntrack_entries_of_the_ports_new_holder(
    containers: list[Container], outside_host: Container
) -> None:
    old, new, _ = containers
    first = portmap_runner(old, DNS)
    first.add()
    first.delete()
    previous_result = bridge_result(new, 3)
    with run_whoami(new, 53, "new", protocol="udp"):
        PluginRunner("portmap", new, runtimeConfig={"portMappings": [DNS]}, prevResult=previous_result).add()
        assert query_whoami(outside_host, "192.0.2.1", 5353, protocol="udp") == "new 192.0.2.2"
        first.delete()
        assert "dport=5353" in conntrack_entries(outside_host.host)


class TestGoIptables:
    """The Go plugin and pycni check and delete each other's iptables rules."""

    def test_check_and_del_accept_an_add_of_the_go_plugin(
        self, container: Container, go_runner: type[PluginRunner]
    ) -> None:
        previous_result = bridge_result(container, 2) | {"cniVersion": "1.0.0"}
        by_go = go_runner("portmap", container, runtimeConfig={"portMappings": [WEB, DNS]}, prevResult=previous_result)
        by_go.add()
        by_pycni = PluginRunner(
            "portmap", container, runtimeConfig={"portMappings": [WEB, DNS]}, prevResult=previous_result
        )
        by_pycni.config["cniVersion"] = "1.0.0"
        by_pycni.result = previous_result
        by_pycni.check()
        by_pycni.config["backend"] = "iptables"
        by_pycni.check()
        drop_mappings_and_results(by_pycni)
        by_pycni.delete()
        assert rules(container.host, container) == []

    def test_go_del_removes_the_rules_of_pycni(self, container: Container, go_runner: type[PluginRunner]) -> None:
        previous_result = bridge_result(container, 2) | {"cniVersion": "1.0.0"}
        mappings = {"runtimeConfig": {"portMappings": [WEB, DNS, {**WEB, "hostPort": 8081, "hostIP": "10.1.0.1"}]}}
        by_pycni = PluginRunner("portmap", container, prevResult=previous_result, backend="iptables", **mappings)
        by_pycni.config["cniVersion"] = "1.0.0"
        by_pycni.add()
        by_go = go_runner("portmap", container, prevResult=previous_result, **mappings)
        by_go.result = previous_result
        by_go.delete()
        assert "CNI-DN-" not in container.host.run("iptables-save; ip6tables-save")

    @pytest.mark.newer_go
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"snat": False},
            {"masqAll": True},
            {"markMasqBit": 5},
            {"externalSetMarkChain": "MARKED"},
            {"conditionsV4": ["!", "-s", "192.0.2.0/24"], "conditionsV6": ["-s", "fd00::/8"]},
        ],
    )
    def test_go_check_accepts_an_add_of_pycni(
        self, container: Container, go_runner: type[PluginRunner], options: dict[str, Any]
    ) -> None:
        """Before 1.3, Go's CHECK looks for IPv4 rules with ip6tables."""
        container.host.run("iptables -t nat -N MARKED && ip6tables -t nat -N MARKED")
        mappings = [*({**WEB, "hostPort": 9000 + number} for number in range(20)), DNS, {**WEB, "hostIP": "10.1.0.1"}]
        by_pycni, by_go = (
            portmap_runner(container, *mappings, runner_class=runner_class, backend="iptables", **options)
            for runner_class in (PluginRunner, go_runner)
        )
        by_pycni.add()
        by_go.check()
        by_go.delete()
        assert "CNI-DN-" not in container.host.run("iptables-save; ip6tables-save")
        by_pycni.gc()  # removes the address labels in pycni's nftables table
        assert rules(container.host, container) == []

    def test_rules_are_the_same_as_the_go_plugins(
        self, containers: list[Container], go_runner: type[PluginRunner]
    ) -> None:
        container, host = containers[0], containers[0].host
        previous_result = bridge_result(container, 2) | {"cniVersion": "1.0.0"}
        mappings = [
            WEB,
            DNS,
            *({**WEB, "hostPort": 9000 + number} for number in range(20)),
            {**WEB, "hostPort": 1, "hostIP": "10.1.0.1"},
        ]
        config: dict[str, Any] = {"runtimeConfig": {"portMappings": mappings}, "prevResult": previous_result}
        saved = []
        for runner in (
            go_runner("portmap", container, **config),
            PluginRunner("portmap", container, backend="iptables", **config),
        ):
            runner.config["cniVersion"] = "1.0.0"
            runner.result = previous_result
            runner.add()
            lines = host.run("iptables-save -t nat").splitlines()
            saved.append([line for line in lines if line.startswith("-A") and "CNI-" in line])
            runner.delete()
        by_go, by_pycni = saved
        assert by_pycni == by_go

    def test_gc_removes_iptables_rules_of_the_go_plugin(
        self, containers: list[Container], go_runner: type[PluginRunner]
    ) -> None:
        for last, container in enumerate(containers[:2], start=2):
            previous_result = bridge_result(container, last) | {"cniVersion": "1.0.0"}
            mapping = {**WEB, "hostPort": 8080 + last}
            go_runner("portmap", container, runtimeConfig={"portMappings": [mapping]}, prevResult=previous_result).add()
        alive = PluginRunner("portmap", containers[0])
        alive.gc(alive)
        assert rules(containers[0].host, containers[0])
        assert rules(containers[0].host, containers[1]) == []

    def test_del_removes_rules_that_others_added_to_the_containers_chain(self, container: Container) -> None:
        host, runner = container.host, portmap_runner(container, DNS, backend="iptables")
        runner.add()
        chain = runner.owner.container_name("CNI-DN-", 28)
        for destination in ("10.1.0.2", "10.1.0.2-10.1.0.9:53", "10.1.0.9:53"):
            host.run(f"iptables -t nat -A {chain} -p udp --dport 99 -j DNAT --to-destination {destination}")
        drop_mappings_and_results(runner)
        runner.delete()
        assert rules(host, container) == []

    def test_del_removes_the_snat_chain_of_old_go_plugins(self, container: Container) -> None:
        """Go plugins before 2017 created it."""
        host, runner = container.host, portmap_runner(container, WEB)
        name = runner.owner.container_name("CNI-SN-", 28)
        host.run(f"iptables -t nat -N CNI-HOSTPORT-SNAT && iptables -t nat -N {name}")
        host.run(f"iptables -t nat -A CNI-HOSTPORT-SNAT -j {name}")
        runner.delete()
        assert name not in host.run("iptables-save -t nat")


MANY = [
    WEB,
    DNS,
    {**WEB, "hostPort": 8081, "hostIP": "10.1.0.1"},
    {**WEB, "hostPort": 8082, "hostIP": "0.0.0.0"},
    {**WEB, "hostPort": 8083, "hostIP": "fd00:1::1"},
    {**DNS, "hostPort": 5354, "hostIP": "::"},
]


@pytest.mark.exhaustive
@pytest.mark.newer_go
class TestGoNftables:
    """Rules of the Go plugin since 1.6 in nftables. They name the container only."""

    @pytest.mark.parametrize(
        "options", [{}, {"snat": False}, {"masqAll": True}, {"conditionsV4": ["tcp", "sport", "1"]}]
    )
    @pytest.mark.parametrize("backend", ["", "nftables"])
    def test_check_and_del_accept_an_add_of_the_go_plugin(
        self, container: Container, go_runner: type[PluginRunner], options: dict[str, Any], backend: str
    ) -> None:
        portmap_runner(container, *MANY, runner_class=go_runner, backend="nftables", **options).add()
        by_pycni = portmap_runner(container, *MANY, backend=backend, **options)
        by_pycni.check()
        by_pycni.delete()
        assert rules(container.host, container) == []
        with pytest.raises(CniError, match="is missing"):
            by_pycni.check()

    @pytest.mark.parametrize("with_prev_result", [True, False])
    @pytest.mark.parametrize("mappings", [[], [WEB], MANY])
    def test_del_finds_the_rules_with_any_mappings(
        self,
        containers: list[Container],
        go_runner: type[PluginRunner],
        mappings: list[dict[str, Any]],
        *,
        with_prev_result: bool,
    ) -> None:
        container, other, _ = containers
        portmap_runner(container, *MANY, runner_class=go_runner, backend="nftables").add()
        portmap_runner(other, {**WEB, "hostPort": 81}, last=3, runner_class=go_runner, backend="nftables").add()
        by_pycni = portmap_runner(container, *mappings)
        if not with_prev_result:
            by_pycni.forget()
            del by_pycni.config["prevResult"]
        by_pycni.delete()
        assert rules(container.host, container) == []
        portmap_runner(other, {**WEB, "hostPort": 81}, last=3).check()

    def test_del_removes_the_rules_of_one_of_two_networks(
        self, container: Container, go_runner: type[PluginRunner]
    ) -> None:
        """Go: DEL for one network removes the ports of the other."""
        first = portmap_runner(container, WEB, runner_class=go_runner, backend="nftables")
        second = portmap_runner(
            container,
            {**WEB, "hostPort": 8081},
            name="two",
            ifname="eth1",
            net=2,
            runner_class=go_runner,
            backend="nftables",
        )
        first.add()
        second.add()
        unknown = portmap_runner(container)
        drop_mappings_and_results(unknown)
        unknown.delete()
        assert "10.1.0.2" in str(rules(container.host, container))  # their network is unknown
        portmap_runner(container, WEB).delete()
        assert "10.1.0.2" not in str(rules(container.host, container))
        portmap_runner(container, {**WEB, "hostPort": 8081}, name="two", ifname="eth1", net=2).check()
        unknown.delete()
        assert rules(container.host, container) == []

    @by_backend
    @pytest.mark.parametrize(
        ("go_mapping", "mapping"),
        [
            ({}, {}),
            ({}, {"hostIP": "10.1.0.1"}),
            ({"hostIP": "10.1.0.1"}, {}),
            ({"hostIP": "0.0.0.0"}, {"hostIP": "10.1.0.1"}),
            ({"hostIP": "fd00:1::1"}, {"hostIP": "::"}),
            ({"hostIP": "::"}, {"hostIP": "fd00:1::1"}),
        ],
    )
    def test_error_for_a_host_port_of_the_go_plugin_names_its_container(
        self,
        containers: list[Container],
        go_runner: type[PluginRunner],
        backend: str,
        go_mapping: dict[str, str],
        mapping: dict[str, str],
    ) -> None:
        first, second, _ = containers
        portmap_runner(first, DNS, {**WEB, **go_mapping}, runner_class=go_runner, backend="nftables").add()
        late = portmap_runner(second, {**WEB, "hostPort": 81}, {**WEB, **mapping}, last=3, backend=backend)
        with pytest.raises(CniError, match=f"host port tcp/8080.* is already mapped to container {first.id}") as caught:
            late.add()
        assert caught.value.code == 11
        assert rules(second.host, second) == []
        portmap_runner(first, DNS, {**WEB, **go_mapping}).delete()
        late.add()
        late.check()

    @by_backend
    def test_host_port_does_not_conflict_with_other_address_protocol_or_family(
        self, containers: list[Container], go_runner: type[PluginRunner], backend: str
    ) -> None:
        portmap_runner(containers[0], {**WEB, "hostIP": "10.1.0.1"}, runner_class=go_runner, backend="nftables").add()
        others = [{**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, {**WEB, "hostIP": "::"}]
        late = portmap_runner(containers[1], *others, last=3, backend=backend)
        late.add()
        late.check()

    @by_backend
    def test_repeated_add_by_pycni_replaces_the_rules_of_the_go_plugin(
        self, container: Container, go_runner: type[PluginRunner], backend: str
    ) -> None:
        portmap_runner(container, WEB, runner_class=go_runner, backend="nftables").add()
        by_pycni = portmap_runner(container, WEB, backend=backend)
        by_pycni.add()
        by_pycni.check()
        by_pycni.delete()
        assert rules(container.host, container) == []

    @by_backend
    def test_stale_mapping_to_the_same_address_is_replaced(
        self, containers: list[Container], go_runner: type[PluginRunner], backend: str
    ) -> None:
        """IPAM has reassigned the address although no DEL was sent."""
        lost, other, new = containers
        portmap_runner(lost, WEB, DNS, runner_class=go_runner, backend="nftables").add()
        portmap_runner(other, {**WEB, "hostPort": 81}, last=3, runner_class=go_runner, backend="nftables").add()
        by_pycni = portmap_runner(new, {**WEB, "containerPort": 8000}, backend=backend)
        by_pycni.add()
        by_pycni.check()
        assert rules(lost.host, lost) == []
        assert rules(other.host, other)

    def test_gc_keeps_the_rules(self, container: Container, go_runner: type[PluginRunner]) -> None:
        """They may belong to another network."""
        by_go = portmap_runner(container, WEB, runner_class=go_runner, backend="nftables")
        by_go.add()
        PluginRunner("portmap", container).gc()
        by_go.check()


@pytest.mark.newer_go
class TestReturnToGo:
    """The Go plugin is installed again while containers of pycni run. Its DEL does not know pycni's nftables rules."""

    @pytest.mark.parametrize("first", ["pycni", "go"])
    @by_backend
    def test_next_container_gets_a_port_that_go_del_did_not_remove(
        self,
        containers: list[Container],
        outside_host: Container,
        go_runner: type[PluginRunner],
        backend: str,
        first: str,
    ) -> None:
        old, new, _ = containers
        by_go = portmap_runner(new, {**WEB, "hostPort": 81}, last=3, runner_class=go_runner, backend=backend)
        if first == "go":
            by_go.add()  # of chains with equal priority, the one registered last is called first
        portmap_runner(old, WEB).add()
        portmap_runner(old, WEB, runner_class=go_runner, backend=backend).delete()
        assert "10.1.0.2" in str(rules(old.host, old))
        previous_result = bridge_result(new, 3)
        with run_whoami(new, 80, "new"):
            go_runner(
                "portmap", new, runtimeConfig={"portMappings": [WEB]}, prevResult=previous_result, backend=backend
            ).add()
            assert query_whoami(outside_host, "192.0.2.1", 8080) == "new 192.0.2.2"
            assert query_whoami(old.host, "127.0.0.1", 8080).startswith("new ")

    @pytest.mark.parametrize("end", ["DEL", "GC"])
    def test_rules_that_go_del_did_not_remove_are_removed_by_pycnis_del_or_gc(
        self, containers: list[Container], go_runner: type[PluginRunner], end: str
    ) -> None:
        old, alive, new = containers
        runner = portmap_runner(old, WEB, DNS)
        runner.add()
        portmap_runner(old, WEB, DNS, runner_class=go_runner).delete()
        other = portmap_runner(alive, {**WEB, "hostPort": 81}, last=3, runner_class=go_runner)
        other.add()
        late = portmap_runner(new, WEB, last=4)
        with pytest.raises(CniError, match=f"is already mapped to .*container {old.id}"):
            late.add()
        if end == "DEL":
            runner.delete()
        else:
            late.gc(other)
        assert rules(old.host, old) == []
        other.check()
        late.add()
        late.check()


class TestOlderGoNftables:
    """Rules of the Go plugin 1.6 to 1.8 in nftables: ports with a hostIP are in a chain of their own."""

    @by_backend
    def test_error_for_a_host_port_of_the_go_plugin_names_its_container(
        self, containers: list[Container], backend: str
    ) -> None:
        first, second, _ = containers
        self._added_by_go(first, "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.2:80")
        late = portmap_runner(second, WEB, last=3, backend=backend)
        with pytest.raises(CniError, match=f"host port tcp/8080 is already mapped to container {first.id}"):
            late.add()
        free = portmap_runner(
            second, {**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, last=3, backend=backend
        )
        free.add()
        free.delete()
        portmap_runner(first, WEB, backend=backend).add()

    def test_check_and_del_accept_an_add_of_the_go_plugin(self, container: Container) -> None:
        runner = self._added_by_go(container, "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.2:80")
        runner.check()
        drop_mappings_and_results(runner)
        runner.delete()
        assert rules(container.host, container) == []

    @pytest.mark.parametrize(
        "rule",
        [
            "ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.1.0.2:80",
            "ip daddr 10.1.0.1 udp dport 8080 dnat to 10.1.0.2:80",
            "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.2:81",
            "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.3:80",
        ],
    )
    def test_check_fails_if_the_rule_differs(self, container: Container, rule: str) -> None:
        with pytest.raises(CniError, match="8080 .*is missing"):
            self._added_by_go(container, rule).check()

    def _added_by_go(self, container: Container, rule: str) -> PluginRunner:
        host, comment = container.host, f'comment "{container.id}"'
        host.run(
            f"""nft -f- <<'END'
            table ip cni_hostport {{
                chain hostports {{ }}
                chain hostip_hostports {{ {rule} {comment}; }}
                chain prerouting {{ type nat hook prerouting priority dstnat; jump hostip_hostports; jump hostports; }}
                chain masquerading {{
                    type nat hook postrouting priority srcnat
                    ip saddr 10.1.0.2 ip daddr 10.1.0.2 masquerade {comment}
                }}
            }}
END"""
        )
        runner = portmap_runner(container, {**WEB, "hostIP": "10.1.0.1"})
        runner.result = runner.config["prevResult"]
        return runner
