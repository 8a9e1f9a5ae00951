"""portmap: each option and its effect, seen by packets that must pass and packets that must not."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, query_whoami, run_whoami, wait_for

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}
# A frame that goes back to where it came from, to a container that asks itself by the host, needs hairpinMode.
BRIDGE = {"isDefaultGateway": True, "hairpinMode": True}
by_backend = pytest.mark.parametrize("backend", ["nftables", "iptables"])


def bridged(container: Container, last: int = 2, *, bridge: str = "br0", net: int = 1, **config: Any) -> dict[str, Any]:
    """The result of a bridge whose addresses end in `last`."""
    addresses = [{"address": f"10.{net}.0.{last}/24"}, {"address": f"fd00:{net}::{last}/64"}]
    ipam = {"type": "static", "addresses": addresses}
    made = PluginRunner("bridge", container, **{**BRIDGE, "bridge": bridge, "ipam": ipam, **config}).add()
    wait_for(lambda: container.pings(f"fd00:{net}::1"), "the end of the gateway's duplicate address detection")
    return made


def published(container: Container, *mappings: dict[str, Any], last: int = 2, **config: Any) -> PluginRunner:
    """A runtime of portmap for a bridged container, after its ADD."""
    result = config.pop("prevResult", None) or bridged(container, last)
    mapped = {"runtimeConfig": {"portMappings": list(mappings)}, "prevResult": result}
    runtime = PluginRunner("portmap", container, **mapped, **config)
    runtime.add()
    return runtime


@pytest.fixture
def web(containers: list[Container]) -> Iterator[Container]:
    """The container that serves; 80 by tcp and 53 by udp, in both families."""
    with ExitStack() as services:
        for address in ("", "::"):
            services.enter_context(run_whoami(containers[0], 80, "web", address=address))
            services.enter_context(run_whoami(containers[0], 53, "dns", protocol="udp", address=address))
        yield containers[0]


@pytest.fixture
def neighbour(containers: list[Container]) -> Container:
    """A container beside it."""
    return containers[1]


@pytest.fixture
def world(containers: list[Container]) -> Container:
    """The world outside: 192.0.2.2 and 2001:db8::2, with a way to the containers by the host."""
    host, world = containers[2].host, containers[2]
    host.run(f"ip link add up0 type veth peer name eth0 netns {world.path}")
    host.run("ip addr add 192.0.2.1/29 dev up0 && ip addr add 192.0.2.3/29 dev up0 && ip link set up0 up")
    host.run("ip addr add 2001:db8::1/64 dev up0 nodad")
    world.run("ip addr add 192.0.2.2/29 dev eth0 && ip addr add 2001:db8::2/64 dev eth0 nodad && ip link set eth0 up")
    world.run("ip route add 10.0.0.0/8 via 192.0.2.1 && ip route add fd00::/16 via 2001:db8::1")
    wait_for(lambda: world.pings("192.0.2.1") and world.pings("2001:db8::1"), "the uplink")
    return world


@by_backend
def test_the_world_reaches_a_published_port_as_itself(web: Container, world: Container, backend: str) -> None:
    published(web, WEB, DNS, backend=backend)
    assert query_whoami(world, "192.0.2.1", 8080) == "web 192.0.2.2"
    assert query_whoami(world, "2001:db8::1", 8080) == "web 2001:db8::2"
    assert query_whoami(world, "192.0.2.1", 5353, protocol="udp") == "dns 192.0.2.2"
    assert query_whoami(world, "2001:db8::1", 5353, protocol="udp") == "dns 2001:db8::2"
    assert query_whoami(world, "192.0.2.1", 80) == ""
    assert query_whoami(world, "192.0.2.1", 5353) == ""  # that is a port of udp alone


@by_backend
def test_nobody_reaches_it_after_del(web: Container, world: Container, backend: str) -> None:
    runtime = published(web, WEB, backend=backend)
    runtime.delete()
    assert query_whoami(world, "192.0.2.1", 8080) == ""
    assert query_whoami(world, "2001:db8::1", 8080) == ""
    assert query_whoami(world, "10.1.0.2", 80) == "web 192.0.2.2"


@by_backend
def test_the_host_reaches_it_by_every_address_of_its_own(web: Container, world: Container, backend: str) -> None:
    published(web, WEB, backend=backend)
    host = web.host
    assert query_whoami(host, "192.0.2.1", 8080) == "web 192.0.2.1"
    assert query_whoami(host, "10.1.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(host, "127.0.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(host, "2001:db8::1", 8080) == "web 2001:db8::1"


def test_localhost_by_ipv6_is_refused_at_once_and_not_led_astray(web: Container, host: Host) -> None:
    """Packets of ::1 cannot leave the host. A client that tries ::1 first goes on to 127.0.0.1."""
    published(web, WEB)
    with socket.socket(socket.AF_INET6) as client, pytest.raises(ConnectionRefusedError):
        client.settimeout(5)
        client.connect(("::1", 8080))


@by_backend
def test_hairpin_the_container_and_its_neighbours_reach_it_by_the_host(
    web: Container, neighbour: Container, world: Container, backend: str
) -> None:
    published(web, WEB, DNS, backend=backend)
    bridged(neighbour, 3)
    for address, gateway in (("192.0.2.1", "10.1.0.1"), ("2001:db8::1", "fd00:1::1")):
        for client in (web, neighbour):
            assert query_whoami(client, address, 8080) == f"web {gateway}"
            assert query_whoami(client, address, 5353, protocol="udp") == f"dns {gateway}"
    # Who asks the container itself is not masqueraded.
    assert query_whoami(neighbour, "10.1.0.2", 80) == "web 10.1.0.3"


@by_backend
def test_cve_2025_67499_transit_to_the_same_port_is_not_translated(
    web: Container, neighbour: Container, world: Container, backend: str
) -> None:
    published(web, WEB, backend=backend)
    bridged(neighbour, 3)
    with run_whoami(neighbour, 8080, "other"), run_whoami(neighbour, 8080, "other", address="::"):
        assert query_whoami(world, "10.1.0.3", 8080) == "other 192.0.2.2"
        assert query_whoami(world, "fd00:1::3", 8080) == "other 2001:db8::2"
        assert query_whoami(web.host, "10.1.0.3", 8080) == "other 10.1.0.1"
    with run_whoami(world, 8080, "world"), run_whoami(world, 8080, "world", address="::"):
        assert query_whoami(web, "192.0.2.2", 8080) == "world 10.1.0.2"
        assert query_whoami(web.host, "192.0.2.2", 8080) == "world 192.0.2.1"
        assert query_whoami(web.host, "2001:db8::2", 8080) == "world 2001:db8::1"


@by_backend
def test_the_address_of_a_service_is_not_translated(
    web: Container, neighbour: Container, world: Container, backend: str
) -> None:
    """What kube-proxy does with an address that is nobody's, whose port is a host port too, from whoever it comes."""
    host = web.host
    published(web, WEB, backend=backend)
    bridged(neighbour, 3)
    host.run("ip route add default via 192.0.2.2")
    host.run(
        "nft 'table ip kube { chain pre { type nat hook prerouting priority -90;"
        " ip daddr 10.96.0.1 tcp dport 8080 dnat to 10.1.0.2:80; }\n"
        "chain out { type nat hook output priority -90; ip daddr 10.96.0.1 tcp dport 8080 dnat to 10.1.0.3:80; }\n }'"
    )
    with run_whoami(neighbour, 80, "other"):
        assert query_whoami(world, "10.96.0.1", 8080) == "web 192.0.2.2"
        assert query_whoami(host, "10.96.0.1", 8080).startswith("other ")


@by_backend
def test_a_port_of_one_address_is_none_of_the_others(web: Container, world: Container, backend: str) -> None:
    published(
        web,
        {**WEB, "hostIP": "192.0.2.3"},
        {**WEB, "hostPort": 8081, "hostIP": "2001:db8::1"},
        {**WEB, "hostPort": 8082, "hostIP": "127.0.0.1"},
        backend=backend,
    )
    assert query_whoami(world, "192.0.2.3", 8080) == "web 192.0.2.2"
    assert query_whoami(world, "192.0.2.1", 8080) == ""
    assert query_whoami(world, "2001:db8::1", 8080) == ""
    assert query_whoami(world, "2001:db8::1", 8081) == "web 2001:db8::2"
    assert query_whoami(world, "192.0.2.3", 8081) == ""
    assert query_whoami(web.host, "127.0.0.1", 8082) == "web 10.1.0.1"
    assert query_whoami(world, "192.0.2.1", 8082) == ""


@by_backend
def test_the_unspecified_address_is_every_address_of_its_family(web: Container, world: Container, backend: str) -> None:
    published(web, {**WEB, "hostIP": "0.0.0.0"}, {**WEB, "hostPort": 8081, "hostIP": "::"}, backend=backend)
    assert query_whoami(world, "192.0.2.1", 8080) == query_whoami(world, "192.0.2.3", 8080) == "web 192.0.2.2"
    assert query_whoami(world, "2001:db8::1", 8080) == ""
    assert query_whoami(world, "2001:db8::1", 8081) == "web 2001:db8::2"
    assert query_whoami(world, "192.0.2.1", 8081) == ""


@by_backend
@pytest.mark.parametrize("host_ip", ["", None])
def test_without_host_ip_every_address_of_both_families(
    web: Container, world: Container, backend: str, host_ip: str | None
) -> None:
    published(web, {**WEB, "hostIP": host_ip}, backend=backend)
    assert query_whoami(world, "192.0.2.3", 8080) == "web 192.0.2.2"
    assert query_whoami(world, "2001:db8::1", 8080) == "web 2001:db8::2"


@by_backend
def test_without_snat_nobody_is_masqueraded(
    web: Container, neighbour: Container, world: Container, backend: str
) -> None:
    runtime = published(web, WEB, backend=backend, snat=False)
    bridged(neighbour, 3)
    assert query_whoami(world, "192.0.2.1", 8080) == "web 192.0.2.2"
    # The answer comes from a stranger, unless the kernel has bridged packets pass the firewall too (br_netfilter).
    assert query_whoami(neighbour, "192.0.2.1", 8080, seconds=0.3) in ("", "web 10.1.0.3")
    assert query_whoami(web.host, "127.0.0.1", 8080, seconds=0.3) == ""
    assert web.host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "0"
    runtime.check()


@by_backend
def test_masq_all_hides_whoever_asks(web: Container, world: Container, backend: str) -> None:
    runtime = published(web, WEB, DNS, backend=backend, masqAll=True)
    assert query_whoami(world, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(world, "2001:db8::1", 8080) == "web fd00:1::1"
    assert query_whoami(world, "192.0.2.1", 5353, protocol="udp") == "dns 10.1.0.1"
    assert query_whoami(web.host, "127.0.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(web, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(world, "10.1.0.2", 80) == "web 192.0.2.2"
    runtime.check()


def test_mark_masq_bit_is_the_bit_of_the_mark(web: Container, neighbour: Container, world: Container) -> None:
    runtime = published(web, WEB, backend="iptables", markMasqBit=5)
    bridged(neighbour, 3)
    assert "--set-xmark 0x20/0x20" in web.host.run("iptables-save -t nat")
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    runtime.check()


def test_external_set_mark_chain_marks_in_our_place(web: Container, neighbour: Container, world: Container) -> None:
    """As with kube-proxy, whose chain this may be."""
    host = web.host
    for program in ("iptables", "ip6tables"):
        host.run(f"{program} -t nat -N KUBE-MARK && {program} -t nat -A KUBE-MARK -j MARK --set-xmark 0x4000/0x4000")
        host.run(f"{program} -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
    runtime = published(web, WEB, externalSetMarkChain="KUBE-MARK")
    bridged(neighbour, 3)
    assert "CNI-HOSTPORT-SETMARK" not in host.run("iptables-save -t nat")
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(neighbour, "2001:db8::1", 8080) == "web fd00:1::1"
    runtime.check()


def test_an_external_set_mark_chain_that_is_not_there_is_named(container: Container) -> None:
    with pytest.raises(CniError, match='externalSetMarkChain "KUBE-MARK" does not exist in table nat of iptables'):
        published(container, WEB, externalSetMarkChain="KUBE-MARK")
    assert "CNI-" not in container.host.run("iptables-save -t nat")


@pytest.mark.parametrize(
    "conditions",
    [
        {"conditionsV4": ["!", "-s", "192.0.2.2"], "conditionsV6": ["!", "-s", "2001:db8::2"]},
        {"conditionsV4": ["ip", "saddr", "!=", "192.0.2.2"], "conditionsV6": ["ip6", "saddr", "!=", "2001:db8::2"]},
    ],
    ids=["iptables", "nftables"],
)
def test_conditions_say_who_may(
    web: Container, neighbour: Container, world: Container, conditions: dict[str, Any]
) -> None:
    """The syntax of the conditions chooses the backend."""
    runtime = published(web, WEB, **conditions)
    bridged(neighbour, 3)
    world.run("ip addr add 192.0.2.4/29 dev eth0 && ip addr add 2001:db8::4/64 dev eth0 nodad")
    wait_for(lambda: neighbour.pings("2001:db8::4"), "the kernel joins the new address's group by and by")
    for address, banned, other in (
        ("192.0.2.1", "192.0.2.2", "192.0.2.4"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::4"),
    ):
        assert query_whoami(world, address, 8080, source=(banned, 0)) == ""
        assert query_whoami(world, address, 8080, source=(other, 0)) == f"web {other}"
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    runtime.check()
    runtime.delete()
    assert query_whoami(world, "192.0.2.1", 8080) == ""
    assert "container-" not in web.host.run("nft list ruleset")


@by_backend
def test_what_comes_from_outside_as_or_to_localhost_is_dropped(
    web: Container, neighbour: Container, backend: str
) -> None:
    """Issue 729 of the Go plugins: route_localnet would let the neighbours in to services of 127.0.0.1."""
    host = web.host
    published(web, WEB, backend=backend)
    bridged(neighbour, 3)
    neighbour.run("sysctl -q net.ipv4.conf.eth0.route_localnet=1 net.ipv4.conf.all.rp_filter=0")
    neighbour.run(
        "ip route add 127.0.0.9 via 10.1.0.1 dev eth0 && ip route del local 127.0.0.0/8 dev lo table local", check=False
    )
    with run_whoami(host, 99, "private", protocol="udp", address="127.0.0.9"):
        assert query_whoami(host, "127.0.0.9", 99, protocol="udp").startswith("private")
        assert query_whoami(neighbour, "127.0.0.9", 99, protocol="udp", seconds=0.5) == ""
        # Without the guard it would be let in, so this test can fail.
        host.run("nft flush chain inet pycni martians" if backend == "nftables" else "iptables -t raw -F")
        assert query_whoami(neighbour, "127.0.0.9", 99, protocol="udp").startswith("private")


def test_route_localnet_and_its_guard_go_with_the_last_who_needs_them(containers: list[Container]) -> None:
    host = containers[0].host

    def state() -> tuple[str, bool]:
        return host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip(), '"br0"' in guarded()

    def guarded() -> str:
        return host.run("nft list set inet pycni guarded")

    first = published(containers[0], WEB)
    second = published(containers[1], {**WEB, "hostPort": 8081}, last=3)
    first.delete()
    assert state() == ("1", True)
    second.delete()
    assert state() == ("0", False)


def test_route_localnet_that_was_there_before_stays(container: Container) -> None:
    host = container.host
    result = bridged(container)
    host.run("sysctl -q net.ipv4.conf.br0.route_localnet=1")
    runtime = published(container, WEB, prevResult=result)
    runtime.delete()
    assert host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "1"


@by_backend
def test_sctp_has_rules(web: Container, backend: str) -> None:
    published(web, {**WEB, "protocol": "sctp"}, backend=backend).check()


@pytest.mark.needs_kernel("sctp")
@by_backend
def test_sctp_is_published(web: Container, world: Container, backend: str) -> None:
    published(web, {**WEB, "protocol": "sctp"}, backend=backend)
    with web.netns.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    with world.netns.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    with server, client:
        server.bind(("", 80))
        server.listen()
        client.settimeout(2)
        client.connect(("192.0.2.1", 8080))
        accepted, peer = server.accept()
        accepted.close()
        assert peer[0] == "192.0.2.2"


@by_backend
def test_many_ports_are_published(web: Container, world: Container, backend: str) -> None:
    """iptables takes 15 of them in a rule."""
    runtime = published(web, *({**WEB, "hostPort": 9000 + number} for number in range(40)), backend=backend)
    for port in (9000, 9014, 9015, 9039):
        assert query_whoami(world, "192.0.2.1", port) == "web 192.0.2.2"
    runtime.check()
    runtime.delete()
    assert query_whoami(world, "192.0.2.1", 9039) == ""


def test_containerd_writes_its_keys_in_capitals(web: Container, world: Container) -> None:
    published(web, {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""})
    assert query_whoami(world, "192.0.2.1", 8080) == "web 192.0.2.2"


@pytest.mark.parametrize(
    "config",
    [
        {"runtimeConfig": {"portMappings": None}},
        {"runtimeConfig": {"portMappings": []}},
        {"runtimeConfig": None},
        {"runtimeConfig": {"portMappings": [WEB]}, "prevResult": {"cniVersion": "1.1.0"}},
    ],
)
def test_nothing_to_map_is_no_work_at_all(container: Container, config: dict[str, Any]) -> None:
    host = container.host
    result = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}
    runtime = PluginRunner("portmap", container, **{"prevResult": result, "backend": "iptables", **config})
    assert runtime.add() == runtime.config["prevResult"]
    runtime.check()
    runtime.delete()
    assert host.run("nft list ruleset") == ""


def test_the_first_address_of_each_family_of_this_interface_is_published(web: Container, world: Container) -> None:
    result = bridged(web)
    elsewhere = {"address": "10.9.9.9/24", "interface": 0}
    result["ips"] = [elsewhere, *result["ips"], {"address": "10.1.0.99/24", "interface": 2}]
    published(web, WEB, prevResult=result)
    assert query_whoami(world, "192.0.2.1", 8080) == "web 192.0.2.2"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hostPort": 0}, r"runtimeConfig\.portMappings\[1\]\.hostPort: Invalid host port number: 0"),
        ({"hostPort": 65536}, r"portMappings\[1\]\.hostPort: Invalid host port number: 65536 .*between 1 and 65535"),
        ({"containerPort": -1}, r"portMappings\[1\]\.containerPort: Invalid container port number: -1"),
        ({"containerPort": 70000}, r"portMappings\[1\]\.containerPort: Invalid container port number: 70000"),
        ({"hostPort": "80"}, r'portMappings\[1\]\.hostPort: .*integer, not "80"'),
        ({"protocol": "icmp"}, r"portMappings\[1\]\.protocol: .*'tcp', 'udp' or 'sctp', not \"icmp\""),
        ({"hostIP": "here"}, r"portMappings\[1\]\.hostIP: invalid IP address: here"),
    ],
)
def test_a_wrong_mapping_is_named(container: Container, config: dict[str, Any], message: str) -> None:
    mappings = [WEB, {**WEB, "hostPort": 8081, **config}]
    runtime = PluginRunner("portmap", container, runtimeConfig={"portMappings": mappings})
    with pytest.raises(CniError, match=message) as caught:
        runtime.add()
    assert caught.value.code == 7
    runtime.delete()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backend": "ebpf"}, 'unrecognized backend "ebpf"'),
        ({"markMasqBit": 32}, "MasqMarkBit must be between 0 and 31"),
        ({"markMasqBit": 1, "externalSetMarkChain": "X"}, "Cannot specify externalSetMarkChain and markMasqBit"),
        (
            {"backend": "nftables", "externalSetMarkChain": "X", "conditionsV4": ["-s", "10.0.0.1"]},
            r"nftables backend was requested .* iptables-specific options \[externalSetMarkChain conditionsV4\]",
        ),
        (
            {"backend": "iptables", "conditionsV6": ["ip6", "saddr", "::1"]},
            r"iptables backend was requested .* nftables-specific options \[conditionsV6\]",
        ),
        ({"conditionsV4": ["-s", "10.0.0.1"], "conditionsV6": ["ip6", "saddr", "::1"]}, "iptables backend was req"),
        ({"conditionsV4": ["ip saddr 10.0.0.1;", "flush ruleset"]}, "conditionsV4: conditions belong to one rule"),
    ],
)
def test_a_wrong_configuration_is_named(container: Container, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        published(container, WEB, **config)
    assert caught.value.code == 7


def test_it_stands_behind_another_plugin(container: Container) -> None:
    runtime = PluginRunner("portmap", container, runtimeConfig={"portMappings": [WEB]})
    with pytest.raises(CniError, match="must be called as chained plugin"):
        runtime.add()
    with pytest.raises(CniError, match="prevResult"):
        runtime.check()
