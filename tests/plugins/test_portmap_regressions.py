"""portmap: the stories behind what goes wrong elsewhere, each told once."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from pycni.kernel.firewall.iptables.listing import Listing
from pycni.kernel.firewall.iptables.restore import IptablesError, Table
from pycni.kernel.firewall.nftables import nft
from pycni.kernel.journal import watching
from pycni.kernel.netns import lock, sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, query_whoami, run_whoami, transport, wait_for

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
    """What a plugin before portmap may have made."""
    return {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": ifname, "sandbox": container.path}],
        "ips": [
            {"address": f"10.{net}.0.{last}/24", "interface": 0},
            {"address": f"fd00:{net}::{last}/64", "interface": 0},
        ],
    }


def mapped(
    container: Container,
    *mappings: dict[str, Any],
    last: int = 2,
    ifname: str = "eth0",
    net: int = 1,
    by: type[PluginRunner] = PluginRunner,
    **config: Any,
) -> PluginRunner:
    """A runtime of portmap, before its ADD; the container's addresses end in `last`."""
    container.host.run(
        "ip link add br0 type bridge && ip addr add 10.1.0.1/24 dev br0 && ip link set br0 up", check=False
    )
    made = result(container, last, ifname=ifname, net=net)
    of = by(
        "portmap",
        container,
        ifname=ifname,
        **{"runtimeConfig": {"portMappings": list(mappings)}, "prevResult": made, **config},
    )
    of.result = made
    return of


def rules(host: Host, container: Container) -> list[str]:
    """The lines of both firewalls that are this container's."""
    lines = host.run("nft list ruleset; iptables-save; ip6tables-save").splitlines()
    chain = PluginRunner("portmap", container).owner.container_name("CNI-DN-", 28)
    return [line for line in lines if container.id in line or chain in line]


def failing_at(start: str) -> Callable[[str], AbstractContextManager[None]]:
    """A watcher that lets the change fail whose description begins so."""

    @contextmanager
    def watch(what: str) -> Iterator[None]:
        if what.startswith(start):
            raise CniError("injected failure")
        yield

    return watch


def without_mappings(runtime: PluginRunner) -> None:
    runtime.config["runtimeConfig"] = {}
    runtime.forget()
    runtime.config.pop("prevResult", None)


@by_backend
def test_r01_gc_takes_back_the_ports_of_attachments_that_are_no_more(containers: list[Container], backend: str) -> None:
    host = containers[0].host
    _, dead, elsewhere = containers
    runtimes = [mapped(c, {**WEB, "hostPort": 8080 + n}, last=2 + n, backend=backend) for n, c in enumerate(containers)]
    runtimes[2].config["name"] = "other"
    for runtime in runtimes:
        runtime.add()
    runtimes[0].gc(runtimes[0])
    assert rules(host, dead) == []
    assert rules(host, elsewhere)
    runtimes[0].check()
    runtimes[2].check()


@by_backend
def test_r03_a_refused_add_leaves_nothing_and_takes_nothing(containers: list[Container], backend: str) -> None:
    """Issue 1538 of CRI-O: the second silently won, or left a rule."""
    first, second, _ = containers
    holder = mapped(first, WEB, backend=backend)
    holder.add()
    late = mapped(second, {**WEB, "hostPort": 9090}, WEB, last=3, backend=backend)
    with pytest.raises(
        CniError, match=rf"host port tcp/8080 is taken: .*container {first.id}.*network \"test\""
    ) as caught:
        late.add()
    assert caught.value.code == 11
    assert rules(first.host, second) == []
    holder.check()
    holder.delete()
    late.add()
    late.check()


@by_backend
@pytest.mark.parametrize("end", ["DEL", "DEL without anything known", "GC", "a failed ADD"])
def test_r07_of_two_interfaces_on_one_network_each_keeps_its_ports(
    container: Container, backend: str, end: str
) -> None:
    host, first = container.host, mapped(container, WEB, DNS, backend=backend)
    second = mapped(container, WEB, {**DNS, "hostPort": 5354}, last=3, ifname="eth1", backend=backend)
    first.add()
    before = rules(host, container)
    if end == "a failed ADD":
        with (
            pytest.raises(CniError, match="injected"),
            watching(failing_at("forget UDP flows")),
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
        case "DEL without anything known":
            without_mappings(second)
            second.delete()
    first.check()
    assert rules(host, container) == before
    third = mapped(container, WEB, {**DNS, "hostPort": 5354}, last=3, ifname="eth1", backend=backend)
    third.add()
    first.delete()
    third.check()
    assert "10.1.0.2" not in "".join(rules(host, container))
    third.delete()
    assert rules(host, container) == []


@pytest.mark.parametrize(("theirs", "ours"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_a_port_is_refused_too_that_the_other_backend_has(containers: list[Container], theirs: str, ours: str) -> None:
    """Or who was first would have it, as between a Go plugin's containers and new ones of ours."""
    first, second, third = containers
    holder = mapped(first, WEB, DNS, backend=theirs)
    holder.add()
    of_one_address = {**DNS, "hostPort": 9090}, {**DNS, "hostIP": "10.1.0.1"}
    for late in (mapped(second, WEB, last=3, backend=ours), mapped(third, *of_one_address, last=4, backend=ours)):
        with pytest.raises(CniError, match=rf"is taken: .*container {first.id}.*network \"test\"") as caught:
            late.add()
        assert caught.value.code == 11
        assert rules(late.container.host, late.container) == []
        free = mapped(late.container, {**WEB, "hostPort": 81}, last=3, backend=ours)
        free.add()
        free.delete()
    elsewhere = mapped(first, WEB, last=5, backend=ours, net=2)
    elsewhere.config["name"] = "other"  # of the same container: it stands by
    elsewhere.add()
    elsewhere.delete()
    holder.check()
    holder.delete()
    late.add()
    late.check()


@pytest.mark.direct
def test_what_iptables_cannot_list_is_in_nobodys_way(
    containers: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_table: Table) -> Listing:
        raise IptablesError("iptables-save", (), "table `nat' is incompatible, use 'nft' tool.")

    mapped(containers[0], WEB, backend="iptables").add()
    monkeypatch.setattr(Table, "listing", refused)
    runtime = mapped(containers[1], WEB, last=3)
    runtime.add()
    runtime.check()


@by_backend
@pytest.mark.parametrize(("first", "second"), [("", "10.1.0.1"), ("10.1.0.1", ""), ("10.1.0.1", "0.0.0.0")])
def test_a_port_of_all_addresses_and_one_of_one_address_are_in_each_others_way(
    containers: list[Container], first: str, second: str, backend: str
) -> None:
    holder = mapped(containers[0], {**WEB, "hostIP": first}, backend=backend)
    holder.add()
    late = mapped(containers[1], {**WEB, "hostIP": second}, last=3, backend=backend)
    with pytest.raises(CniError, match=rf"is taken: .*container {containers[0].id}"):
        late.add()
    assert rules(containers[1].host, containers[1]) == []
    holder.check()


@by_backend
def test_the_same_port_of_another_address_protocol_or_family_is_free(containers: list[Container], backend: str) -> None:
    mapped(containers[0], {**WEB, "hostIP": "10.1.0.1"}, backend=backend).add()
    others = [{**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, {**WEB, "hostIP": "::"}]
    late = mapped(containers[1], *others, last=3, backend=backend)
    late.add()
    late.check()


@by_backend
def test_a_second_add_of_the_same_attachment_replaces_the_first(container: Container, backend: str) -> None:
    """R-39: the Go plugin makes every rule twice."""
    mapped(container, WEB, DNS, backend=backend).add()
    before = rules(container.host, container)
    again = mapped(container, {**WEB, "hostPort": 8081}, DNS, backend=backend)
    again.add()
    again.check()
    after = rules(container.host, container)
    assert len(after) == len(before)
    assert not any("8080" in line for line in after)
    again.delete()
    assert rules(container.host, container) == []


@by_backend
def test_a_leftover_that_leads_to_our_own_address_gives_way(containers: list[Container], backend: str) -> None:
    """IPAM has handed the address out again although a DEL was lost."""
    lost, new = (mapped(c, WEB, backend=backend) for c in containers[:2])
    lost.add()
    new.add()
    new.check()
    lost.delete()
    new.check()


@pytest.mark.parametrize("masq_all", [False, True])
def test_a_container_on_two_networks_has_its_ports_on_each(containers: list[Container], *, masq_all: bool) -> None:
    """Podman gives every network of a container all its ports; the second stands by for the first."""
    container, other, _ = containers
    first = mapped(container, WEB, name="one", masqAll=masq_all)
    second = mapped(container, WEB, name="two", ifname="eth1", net=2, masqAll=masq_all)
    first.add()
    second.add()
    first.check()
    second.check()
    late = mapped(other, WEB, last=3)
    with pytest.raises(CniError, match="is taken"):
        late.add()
    first.delete()
    second.check()
    with pytest.raises(CniError, match="is taken"):
        late.add()
    second.delete()
    assert rules(container.host, container) == []
    late.add()


@by_backend
def test_r16_sixteen_first_adds_at_once_make_each_shared_rule_once(host: Host, backend: str) -> None:
    made = [Container(host) for _ in range(16)]
    runtimes = [mapped(c, {**WEB, "hostPort": 8000 + n}, last=2 + n, backend=backend) for n, c in enumerate(made)]
    at_once([runtime.add for runtime in runtimes], host)
    for runtime in runtimes:
        runtime.check()
    assert_shared_once(host, backend)
    at_once([runtime.delete for runtime in runtimes], host)
    assert not any(rules(host, container) for container in made)
    assert_shared_once(host, backend)
    for container in made:
        container.close()


@by_backend
@pytest.mark.exhaustive
def test_r16_two_hundred_adds_at_once_end_without_error_or_duplicate(host: Host, backend: str) -> None:
    made = [Container(host) for _ in range(200)]
    runtimes = [mapped(c, {**WEB, "hostPort": 8000 + n}, last=2 + n, backend=backend) for n, c in enumerate(made)]
    at_once([runtime.add for runtime in runtimes], host)
    assert_shared_once(host, backend)
    if backend == "nftables":
        assert host.run("nft list map inet pycni hostports4").count("comment") == 200
    else:
        assert host.run("iptables-save -t nat").count("-j DNAT") == 200
    for container in made:
        container.close()


def at_once(calls: list[Any], host: Host) -> None:
    def call(one: Any) -> None:
        host.netns.enter_permanently()  # a thread starts where the process is
        one()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, calls))


def assert_shared_once(host: Host, backend: str) -> None:
    if backend == "nftables":
        assert host.run("nft list chain inet pycni hostport-prerouting").count("jump hostports") == 1
        assert host.run("nft list chain inet pycni hostports").count("@hostports4") == 1
        return
    for program in ("iptables-save", "ip6tables-save"):
        lines = host.run(f"{program} -t nat").splitlines()
        assert {line: lines.count(line) for line in SHARED} == dict.fromkeys(SHARED, 1)


@by_backend
def test_the_same_port_at_once_is_one_containers(containers: list[Container], backend: str) -> None:
    one, other, _ = containers
    wanted = [mapped(one, WEB, backend=backend), mapped(other, {**WEB, "hostIP": "10.1.0.1"}, last=3, backend=backend)]

    def attempt(runtime: PluginRunner) -> bool:
        one.host.netns.enter_permanently()
        try:
            runtime.add()
        except CniError as error:
            if "is taken" not in str(error):
                raise
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            outcomes = list(pool.map(attempt, wanted))
            assert sorted(outcomes) == [False, True]
            for runtime in wanted:
                runtime.delete()


@pytest.mark.direct
def test_an_add_during_the_last_ones_del_has_its_route_localnet(
    containers: list[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DEL was about to put the setting back, and did so when a new container needed it already."""
    last, new = mapped(containers[0], WEB), mapped(containers[1], {**WEB, "hostPort": 8081}, last=3)
    last.add()
    prefer, take, adds = sysctl.prefer, lock._take, list[Future[Any]]()
    waits = threading.Event()

    def watched(fd: int, kind: int) -> bool:
        taken = take(fd, kind)
        if adds and not taken:
            waits.set()
        return taken

    monkeypatch.setattr(lock, "_take", watched)
    with ThreadPoolExecutor(1) as pool:

        def late(netns: NetnsHandle, wanted: dict[str, str]) -> None:
            adds.append(pool.submit(new.add))
            wait_for(lambda: waits.is_set() or adds[0].done(), "the ADD waits for us, or does not")
            prefer(netns, wanted)
            if adds[0].done():
                new.check()

        monkeypatch.setattr(sysctl, "prefer", late)
        last.delete()
    adds[0].result()
    new.check()


@pytest.mark.direct
def test_what_a_killed_del_left_of_route_localnet_goes_with_the_next(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = mapped(container, WEB)
    runtime.add()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sysctl, "prefer", killed)
        runtime.delete()
    assert '"br0"' in container.host.run("nft list set inet pycni guarded")
    runtime.add()
    runtime.delete()
    assert '"br0"' not in container.host.run("nft list set inet pycni guarded")
    assert container.host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "0"


@by_backend
@pytest.mark.parametrize("now", ["nftables", "iptables", ""])
def test_r38_del_finds_what_is_there_whatever_the_configuration_says(
    container: Container, backend: str, now: str
) -> None:
    """Mappings, previous result and backend are not those of the ADD any more."""
    runtime = mapped(container, WEB, DNS, backend=backend)
    runtime.add()
    without_mappings(runtime)
    runtime.config["backend"] = now
    runtime.delete()
    assert rules(container.host, container) == []


@by_backend
def test_r38_del_with_other_mappings_removes_those_that_were_made(container: Container, backend: str) -> None:
    runtime = mapped(container, WEB, DNS, backend=backend)
    runtime.add()
    runtime.config["runtimeConfig"] = {"portMappings": [WEB, {**WEB, "hostPort": 9999}]}
    runtime.delete()
    assert rules(container.host, container) == []


@pytest.mark.parametrize(
    "damage",
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
def test_r05_a_configuration_that_has_become_wrong_does_not_block_delete(
    container: Container, damage: dict[str, Any]
) -> None:
    runtime = mapped(container, WEB)
    runtime.add()
    runtime.config |= damage
    runtime.forget()
    runtime.delete()
    assert rules(container.host, container) == []


def test_r39_conditions_are_of_one_container_alone(containers: list[Container]) -> None:
    """The last ADD's conditions applied to every container."""
    plain, strict, _ = containers
    first = mapped(plain, WEB)
    first.add()
    second = mapped(strict, {**WEB, "hostPort": 8081}, last=3, conditionsV4=["ip", "saddr", "10.9.0.0/16"])
    second.add()
    for line in plain.host.run("nft list ruleset").splitlines():
        assert ("10.9.0.0/16" in line) == (strict.id in line and "saddr 10.9" in line)
    second.delete()
    first.check()
    assert "10.9.0.0/16" not in plain.host.run("nft list ruleset")


@by_backend
def test_r39_del_of_one_network_leaves_the_ports_of_the_other(container: Container, backend: str) -> None:
    first = mapped(container, WEB, name="one", backend=backend)
    second = mapped(container, {**WEB, "hostPort": 8081}, name="two", ifname="eth1", net=2, backend=backend)
    first.add()
    second.add()
    first.delete()
    second.check()


@pytest.mark.direct
def test_r48_by_nftables_no_process_is_started(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    runtime = mapped(container, WEB, DNS)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    runtime.add()
    runtime.check()
    runtime.delete()


def test_r48_what_others_have_is_not_read(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transactions of a whole life are the same however many ports others have."""

    def life() -> list[str]:
        scripts: list[str] = []
        with monkeypatch.context() as context:
            real = nft.Library.run
            context.setattr(nft.Library, "run", lambda self, script: scripts.append(script) or real(self, script))
            for step in (runtime.add, runtime.check, runtime.delete):
                runtime.result = runtime.config["prevResult"]
                step()
        return scripts

    runtime = mapped(container, WEB, DNS)
    runtime.add()
    runtime.delete()
    alone = life()
    others = "".join(
        f"create element inet pycni hostports4 {{ tcp . {n} : 10.7.0.7 . 7 }}\n" for n in range(20000, 22000)
    )
    opened = nft.opened(container.host.netns)
    opened.run(others)
    assert life() == alone
    assert not any("list table" in script or "list map inet pycni hostports" in script for script in alone)


@by_backend
def test_r49_nothing_is_written_to_stderr(
    container: Container, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    runtime = mapped(container, WEB, DNS, backend=backend)
    runtime.add()
    runtime.check()
    runtime.delete()
    runtime.delete()
    assert capfd.readouterr().err == ""


DAMAGE = [
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
        r"host port tcp \. 8080 leads to 10\.1\.0\.77 \. 80, not to 10\.1\.0\.2 \. 80",
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


@pytest.mark.parametrize(("backend", "damage", "message"), DAMAGE)
def test_check_finds_what_is_really_wrong(container: Container, backend: str, damage: str, message: str) -> None:
    container.host.run("ip -6 route add fd00:1::/64 dev lo")
    runtime = mapped(container, WEB, DNS, backend=backend)
    runtime.add()
    runtime.result = runtime.config["prevResult"]
    runtime.check()
    names = {"CHAIN": runtime.owner.container_name("CNI-DN-", 28), "LABEL": runtime.owner.label}
    for placeholder, name in names.items():
        damage = damage.replace(placeholder, name)
    container.host.run(damage)
    with pytest.raises(CniError, match=message):
        runtime.check()


def test_check_finds_a_lost_conditional_rule(container: Container) -> None:
    runtime = mapped(container, WEB, conditionsV4=["ip", "saddr", "10.0.0.0/8"])
    runtime.add()
    runtime.check()
    container.host.run("nft flush chain inet pycni hostport-conditions")
    with pytest.raises(CniError, match=r"the rule for tcp/8080 to 10\.1\.0\.2:80 is missing"):
        runtime.check()


@by_backend
def test_status_is_ready_where_the_firewall_is(container: Container, backend: str) -> None:
    mapped(container, backend=backend).status()


@by_backend
def test_status_names_the_package_that_is_missing(
    container: Container, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    runtime = mapped(container, backend=backend)
    monkeypatch.setattr(nft, "_open", nft.Program)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match=f"{backend} is not available") as caught:
        runtime.status()
    assert caught.value.code == 50


@pytest.fixture
def world(host: Host, containers: list[Container]) -> Container:
    """A world outside with the addresses 192.0.2.2 and 198.51.100.2, and the host between."""
    world = containers[2]
    host.run(f"ip link add up0 type veth peer name eth0 netns {world.path}")
    host.run("ip addr add 192.0.2.1/29 dev up0 && ip link set up0 up && sysctl -q net.ipv4.ip_forward=1")
    world.run("ip addr add 192.0.2.2/29 dev eth0 && ip addr add 198.51.100.2/32 dev eth0 && ip link set eth0 up")
    host.run("ip route add 198.51.100.0/24 via 192.0.2.2")
    wait_for(lambda: world.pings("192.0.2.1"), "the uplink")
    return world


def bridged(container: Container, last: int) -> dict[str, Any]:
    ipam = {"type": "static", "addresses": [{"address": f"10.1.0.{last}/24"}]}
    return PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam).add()


def flows(host: Host) -> str:
    return host.run("cat /proc/thread-self/net/nf_conntrack")


@by_backend
def test_a_udp_flow_that_began_before_is_no_black_hole_and_others_survive(
    containers: list[Container], world: Container, backend: str
) -> None:
    """Issues 123 and 705 of the Go plugins: a client that keeps its port, and flows that have nothing to do with it."""
    (container, *_), host = containers, world.host
    host.run("nft 'table ip watch { chain flows { type filter hook prerouting priority 0; ct state new accept; }\n }'")
    client = {"protocol": "udp", "source": ("192.0.2.2", 4000)}
    assert query_whoami(world, "192.0.2.1", 5353, **client, seconds=0.1) == ""
    query_whoami(world, "192.0.2.1", 5354, **client, seconds=0.1)  # another port
    query_whoami(world, "192.0.2.1", 5353, source=("192.0.2.2", 4000), seconds=0.1)  # another protocol
    query_whoami(host, "198.51.100.7", 5353, protocol="udp", seconds=0.1)  # the same port of somebody else
    before = flows(host)
    assert all(text in before for text in ("dport=5353", "dport=5354", "dst=198.51.100.7"))
    result = bridged(container, 2)
    runtime = PluginRunner(
        "portmap", container, runtimeConfig={"portMappings": [DNS]}, prevResult=result, backend=backend
    )
    with run_whoami(container, 53, "dns", protocol="udp"):
        runtime.add()
        assert "dst=192.0.2.1 sport=4000 dport=5354" in flows(host)
        assert "dst=198.51.100.7" in flows(host)
        assert query_whoami(world, "192.0.2.1", 5353, **client) == "dns 192.0.2.2"


@by_backend
def test_a_udp_flow_follows_its_port_to_the_next_container(
    containers: list[Container], world: Container, backend: str
) -> None:
    """Issue 1190 of the Go plugins: DEL forgets the flows too, and the next container is reached by the same client."""
    old, new, _ = containers
    client = {"protocol": "udp", "source": ("192.0.2.2", 4000)}
    for name, container, last in (("old", old, 2), ("new", new, 3)):
        made = bridged(container, last)
        runtime = PluginRunner(
            "portmap", container, runtimeConfig={"portMappings": [DNS]}, prevResult=made, backend=backend
        )
        with run_whoami(container, 53, name, protocol="udp"):
            runtime.add()
            assert query_whoami(world, "192.0.2.1", 5353, **client) == f"{name} 192.0.2.2"
            without_mappings(runtime)
            runtime.delete()
            assert "dport=5353" not in flows(world.host)
            assert query_whoami(world, "192.0.2.1", 5353, **client, seconds=0.1) == ""


def test_a_late_del_leaves_the_flows_of_the_ports_new_holder(containers: list[Container], world: Container) -> None:
    old, new, _ = containers
    first = mapped(old, DNS)
    first.add()
    first.delete()
    made = bridged(new, 3)
    with run_whoami(new, 53, "new", protocol="udp"):
        PluginRunner("portmap", new, runtimeConfig={"portMappings": [DNS]}, prevResult=made).add()
        assert query_whoami(world, "192.0.2.1", 5353, protocol="udp") == "new 192.0.2.2"
        first.delete()
        assert "dport=5353" in flows(world.host)


class TestGo:
    """What the Go plugin made by iptables ours checks and removes, and the other way round."""

    def test_ours_checks_and_removes_what_go_made(self, container: Container, go_runner: type[PluginRunner]) -> None:
        made = bridged(container, 2) | {"cniVersion": "1.0.0"}
        theirs = go_runner("portmap", container, runtimeConfig={"portMappings": [WEB, DNS]}, prevResult=made)
        theirs.add()
        ours = PluginRunner("portmap", container, runtimeConfig={"portMappings": [WEB, DNS]}, prevResult=made)
        ours.config["cniVersion"] = "1.0.0"
        ours.result = made
        ours.check()
        ours.config["backend"] = "iptables"
        ours.check()
        without_mappings(ours)
        ours.delete()
        assert rules(container.host, container) == []

    def test_go_removes_what_ours_made(self, container: Container, go_runner: type[PluginRunner]) -> None:
        made = bridged(container, 2) | {"cniVersion": "1.0.0"}
        mappings = {"runtimeConfig": {"portMappings": [WEB, DNS, {**WEB, "hostPort": 8081, "hostIP": "10.1.0.1"}]}}
        ours = PluginRunner("portmap", container, prevResult=made, backend="iptables", **mappings)
        ours.config["cniVersion"] = "1.0.0"
        ours.add()
        theirs = go_runner("portmap", container, prevResult=made, **mappings)
        theirs.result = made
        theirs.delete()
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
    def test_go_checks_what_ours_made(
        self, container: Container, go_runner: type[PluginRunner], options: dict[str, Any]
    ) -> None:
        """Its CHECK asked ip6tables for the rules of IPv4, until 1.3."""
        container.host.run("iptables -t nat -N MARKED && ip6tables -t nat -N MARKED")
        mappings = [*({**WEB, "hostPort": 9000 + number} for number in range(20)), DNS, {**WEB, "hostIP": "10.1.0.1"}]
        ours, theirs = (
            mapped(container, *mappings, by=by, backend="iptables", **options) for by in (PluginRunner, go_runner)
        )
        ours.add()
        theirs.check()
        theirs.delete()
        assert "CNI-DN-" not in container.host.run("iptables-save; ip6tables-save")
        ours.gc()  # what is ours alone, the note whose the addresses are
        assert rules(container.host, container) == []

    def test_both_make_the_same_rules(self, containers: list[Container], go_runner: type[PluginRunner]) -> None:
        container, host = containers[0], containers[0].host
        made = bridged(container, 2) | {"cniVersion": "1.0.0"}
        mappings = [
            WEB,
            DNS,
            *({**WEB, "hostPort": 9000 + number} for number in range(20)),
            {**WEB, "hostPort": 1, "hostIP": "10.1.0.1"},
        ]
        config: dict[str, Any] = {"runtimeConfig": {"portMappings": mappings}, "prevResult": made}
        saved = []
        for of in (
            go_runner("portmap", container, **config),
            PluginRunner("portmap", container, backend="iptables", **config),
        ):
            of.config["cniVersion"] = "1.0.0"
            of.result = made
            of.add()
            lines = host.run("iptables-save -t nat").splitlines()
            saved.append([line for line in lines if line.startswith("-A") and "CNI-" in line])
            of.delete()
        theirs, ours = saved
        assert ours == theirs

    def test_gc_removes_what_go_left(self, containers: list[Container], go_runner: type[PluginRunner]) -> None:
        for last, container in enumerate(containers[:2], start=2):
            made = bridged(container, last) | {"cniVersion": "1.0.0"}
            mapping = {**WEB, "hostPort": 8080 + last}
            go_runner("portmap", container, runtimeConfig={"portMappings": [mapping]}, prevResult=made).add()
        alive = PluginRunner("portmap", containers[0])
        alive.gc(alive)
        assert rules(containers[0].host, containers[0])
        assert rules(containers[0].host, containers[1]) == []

    def test_what_somebody_has_put_into_its_chain_goes_too(self, container: Container) -> None:
        host, runtime = container.host, mapped(container, DNS, backend="iptables")
        runtime.add()
        chain = runtime.owner.container_name("CNI-DN-", 28)
        for destination in ("10.1.0.2", "10.1.0.2-10.1.0.9:53", "10.1.0.9:53"):
            host.run(f"iptables -t nat -A {chain} -p udp --dport 99 -j DNAT --to-destination {destination}")
        without_mappings(runtime)
        runtime.delete()
        assert rules(host, container) == []

    def test_the_chain_of_before_2017_goes_too(self, container: Container) -> None:
        host, runtime = container.host, mapped(container, WEB)
        name = runtime.owner.container_name("CNI-SN-", 28)
        host.run(f"iptables -t nat -N CNI-HOSTPORT-SNAT && iptables -t nat -N {name}")
        host.run(f"iptables -t nat -A CNI-HOSTPORT-SNAT -j {name}")
        runtime.delete()
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
class TestGosNftables:
    """What the Go plugin makes by nftables, which it can do since 1.6. It tells the container alone."""

    @pytest.mark.parametrize(
        "options", [{}, {"snat": False}, {"masqAll": True}, {"conditionsV4": ["tcp", "sport", "1"]}]
    )
    @pytest.mark.parametrize("backend", ["", "nftables"])
    def test_ours_checks_and_removes_it(
        self, container: Container, go_runner: type[PluginRunner], options: dict[str, Any], backend: str
    ) -> None:
        mapped(container, *MANY, by=go_runner, backend="nftables", **options).add()
        ours = mapped(container, *MANY, backend=backend, **options)
        ours.check()
        ours.delete()
        assert rules(container.host, container) == []
        with pytest.raises(CniError, match="is missing"):
            ours.check()

    @pytest.mark.parametrize("remembered", [True, False])
    @pytest.mark.parametrize("mappings", [[], [WEB], MANY])
    def test_del_finds_it_whatever_it_is_told(
        self,
        containers: list[Container],
        go_runner: type[PluginRunner],
        mappings: list[dict[str, Any]],
        *,
        remembered: bool,
    ) -> None:
        container, other, _ = containers
        mapped(container, *MANY, by=go_runner, backend="nftables").add()
        mapped(other, {**WEB, "hostPort": 81}, last=3, by=go_runner, backend="nftables").add()
        ours = mapped(container, *mappings)
        if not remembered:
            ours.forget()
            del ours.config["prevResult"]
        ours.delete()
        assert rules(container.host, container) == []
        mapped(other, {**WEB, "hostPort": 81}, last=3).check()

    def test_r39_of_two_networks_the_rules_of_one_go(self, container: Container, go_runner: type[PluginRunner]) -> None:
        """The Go plugin's DEL of one network takes the ports of the other."""
        first = mapped(container, WEB, by=go_runner, backend="nftables")
        second = mapped(
            container, {**WEB, "hostPort": 8081}, name="two", ifname="eth1", net=2, by=go_runner, backend="nftables"
        )
        first.add()
        second.add()
        unknown = mapped(container)
        without_mappings(unknown)
        unknown.delete()
        assert "10.1.0.2" in str(rules(container.host, container))  # which network's they are is not known
        mapped(container, WEB).delete()
        assert "10.1.0.2" not in str(rules(container.host, container))
        mapped(container, {**WEB, "hostPort": 8081}, name="two", ifname="eth1", net=2).check()
        unknown.delete()
        assert rules(container.host, container) == []

    @by_backend
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ({}, {}),
            ({}, {"hostIP": "10.1.0.1"}),
            ({"hostIP": "10.1.0.1"}, {}),
            ({"hostIP": "0.0.0.0"}, {"hostIP": "10.1.0.1"}),
            ({"hostIP": "fd00:1::1"}, {"hostIP": "::"}),
            ({"hostIP": "::"}, {"hostIP": "fd00:1::1"}),
        ],
    )
    def test_a_port_of_its_is_refused_with_its_container(
        self,
        containers: list[Container],
        go_runner: type[PluginRunner],
        backend: str,
        theirs: dict[str, str],
        ours: dict[str, str],
    ) -> None:
        first, second, _ = containers
        mapped(first, DNS, {**WEB, **theirs}, by=go_runner, backend="nftables").add()
        late = mapped(second, {**WEB, "hostPort": 81}, {**WEB, **ours}, last=3, backend=backend)
        with pytest.raises(
            CniError, match=f"host port tcp/8080.* is taken: it leads to container {first.id}"
        ) as caught:
            late.add()
        assert caught.value.code == 11
        assert rules(second.host, second) == []
        mapped(first, DNS, {**WEB, **theirs}).delete()
        late.add()
        late.check()

    @by_backend
    def test_the_same_port_of_another_address_protocol_or_family_is_free(
        self, containers: list[Container], go_runner: type[PluginRunner], backend: str
    ) -> None:
        mapped(containers[0], {**WEB, "hostIP": "10.1.0.1"}, by=go_runner, backend="nftables").add()
        others = [{**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, {**WEB, "hostIP": "::"}]
        late = mapped(containers[1], *others, last=3, backend=backend)
        late.add()
        late.check()

    @by_backend
    def test_a_container_of_its_may_be_added_by_ours(
        self, container: Container, go_runner: type[PluginRunner], backend: str
    ) -> None:
        mapped(container, WEB, by=go_runner, backend="nftables").add()
        ours = mapped(container, WEB, backend=backend)
        ours.add()
        ours.check()
        ours.delete()
        assert rules(container.host, container) == []

    @by_backend
    def test_a_leftover_that_leads_to_our_own_address_gives_way(
        self, containers: list[Container], go_runner: type[PluginRunner], backend: str
    ) -> None:
        """IPAM has handed the address out again although a DEL was lost."""
        lost, other, new = containers
        mapped(lost, WEB, DNS, by=go_runner, backend="nftables").add()
        mapped(other, {**WEB, "hostPort": 81}, last=3, by=go_runner, backend="nftables").add()
        ours = mapped(new, {**WEB, "containerPort": 8000}, backend=backend)
        ours.add()
        ours.check()
        assert rules(lost.host, lost) == []
        assert rules(other.host, other)

    def test_gc_leaves_it_alone(self, container: Container, go_runner: type[PluginRunner]) -> None:
        """It may be another network's."""
        theirs = mapped(container, WEB, by=go_runner, backend="nftables")
        theirs.add()
        PluginRunner("portmap", container).gc()
        theirs.check()


@pytest.mark.newer_go
class TestBackToGo:
    """With containers of ours running. The Go plugin's DEL does not know what ours made by nftables."""

    @pytest.mark.parametrize("first", ["ours", "theirs"])
    @by_backend
    def test_a_port_that_its_del_has_left_is_its_next_containers(
        self, containers: list[Container], world: Container, go_runner: type[PluginRunner], backend: str, first: str
    ) -> None:
        old, new, _ = containers
        theirs = mapped(new, {**WEB, "hostPort": 81}, last=3, by=go_runner, backend=backend)
        if first == "theirs":
            theirs.add()  # of two tables that ask for the same place, the kernel takes the later one first
        mapped(old, WEB).add()
        mapped(old, WEB, by=go_runner, backend=backend).delete()
        assert "10.1.0.2" in str(rules(old.host, old))
        made = bridged(new, 3)
        with run_whoami(new, 80, "new"):
            go_runner("portmap", new, runtimeConfig={"portMappings": [WEB]}, prevResult=made, backend=backend).add()
            assert query_whoami(world, "192.0.2.1", 8080) == "new 192.0.2.2"
            assert query_whoami(old.host, "127.0.0.1", 8080).startswith("new ")

    @pytest.mark.parametrize("end", ["DEL", "GC"])
    def test_what_its_del_has_left_goes_with_ours(
        self, containers: list[Container], go_runner: type[PluginRunner], end: str
    ) -> None:
        old, alive, new = containers
        runtime = mapped(old, WEB, DNS)
        runtime.add()
        mapped(old, WEB, DNS, by=go_runner).delete()
        kept = mapped(alive, {**WEB, "hostPort": 81}, last=3, by=go_runner)
        kept.add()
        late = mapped(new, WEB, last=4)
        with pytest.raises(CniError, match=f"is taken: .*container {old.id}"):
            late.add()
        if end == "DEL":
            runtime.delete()
        else:
            late.gc(kept)
        assert rules(old.host, old) == []
        kept.check()
        late.add()
        late.check()


class TestOlderGosNftables:
    """What the Go plugin made by nftables from 1.6 to 1.8: ports of one address were in a chain of their own."""

    @by_backend
    def test_a_port_of_its_is_refused_with_its_container(self, containers: list[Container], backend: str) -> None:
        first, second, _ = containers
        self._made_by_go(first, "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.2:80")
        late = mapped(second, WEB, last=3, backend=backend)
        with pytest.raises(CniError, match=f"host port tcp/8080 is taken: it leads to container {first.id}"):
            late.add()
        free = mapped(second, {**WEB, "hostIP": "10.1.0.9"}, {**WEB, "protocol": "udp"}, last=3, backend=backend)
        free.add()
        free.delete()
        mapped(first, WEB, backend=backend).add()

    def test_ours_checks_and_removes_it(self, container: Container) -> None:
        runtime = self._made_by_go(container, "ip daddr 10.1.0.1 tcp dport 8080 dnat to 10.1.0.2:80")
        runtime.check()
        without_mappings(runtime)
        runtime.delete()
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
    def test_check_finds_what_is_wrong(self, container: Container, rule: str) -> None:
        with pytest.raises(CniError, match="8080 .*is missing"):
            self._made_by_go(container, rule).check()

    def _made_by_go(self, container: Container, rule: str) -> PluginRunner:
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
        runtime = mapped(container, {**WEB, "hostIP": "10.1.0.1"})
        runtime.result = runtime.config["prevResult"]
        return runtime
