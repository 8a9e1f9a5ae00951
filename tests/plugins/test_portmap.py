"""portmap: the effect of each option on packets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, query_whoami, run_whoami, wait_for

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}
# A container that connects to itself through the host needs hairpinMode: its frames leave by the port they came from.
BRIDGE = {"isDefaultGateway": True, "hairpinMode": True}
by_backend = pytest.mark.parametrize("backend", ["nftables", "iptables"])


def bridge_result(
    container: Container, last: int = 2, *, bridge: str = "br0", net: int = 1, **config: Any
) -> dict[str, Any]:
    """Call ADD of bridge for a container whose addresses end in `last`; return the result."""
    addresses = [{"address": f"10.{net}.0.{last}/24"}, {"address": f"fd00:{net}::{last}/64"}]
    ipam = {"type": "static", "addresses": addresses}
    result = PluginRunner("bridge", container, **{**BRIDGE, "bridge": bridge, "ipam": ipam, **config}).add()
    wait_for(lambda: container.pings(f"fd00:{net}::1"), "the end of the gateway's duplicate address detection")
    return result


def publish(container: Container, *mappings: dict[str, Any], last: int = 2, **config: Any) -> PluginRunner:
    """Call ADD of portmap, after ADD of bridge; return the runner."""
    result = config.pop("prevResult", None) or bridge_result(container, last)
    members = {"runtimeConfig": {"portMappings": list(mappings)}, "prevResult": result}
    runner = PluginRunner("portmap", container, **members, **config)
    runner.add()
    return runner


@pytest.fixture
def web(containers: list[Container]) -> Iterator[Container]:
    """A container that answers on TCP port 80 and UDP port 53 in both families."""
    with ExitStack() as services:
        for address in ("", "::"):
            services.enter_context(run_whoami(containers[0], 80, "web", address=address))
            services.enter_context(run_whoami(containers[0], 53, "dns", protocol="udp", address=address))
        yield containers[0]


@pytest.fixture
def neighbour(containers: list[Container]) -> Container:
    """Another container."""
    return containers[1]


@pytest.fixture
def outside_host(containers: list[Container]) -> Container:
    """A host outside, 192.0.2.2 and 2001:db8::2, with routes to the containers through the host."""
    host, outside_host = containers[2].host, containers[2]
    host.run(f"ip link add up0 type veth peer name eth0 netns {outside_host.path}")
    host.run("ip addr add 192.0.2.1/29 dev up0 && ip addr add 192.0.2.3/29 dev up0 && ip link set up0 up")
    host.run("ip addr add 2001:db8::1/64 dev up0 nodad")
    outside_host.run(
        "ip addr add 192.0.2.2/29 dev eth0 && ip addr add 2001:db8::2/64 dev eth0 nodad && ip link set eth0 up"
    )
    outside_host.run("ip route add 10.0.0.0/8 via 192.0.2.1 && ip route add fd00::/16 via 2001:db8::1")
    wait_for(lambda: outside_host.pings("192.0.2.1") and outside_host.pings("2001:db8::1"), "the uplink")
    return outside_host


@by_backend
def test_published_port_is_reachable_from_outside_without_masquerade(
    web: Container, outside_host: Container, backend: str
) -> None:
    publish(web, WEB, DNS, backend=backend)
    assert query_whoami(outside_host, "192.0.2.1", 8080) == "web 192.0.2.2"
    assert query_whoami(outside_host, "2001:db8::1", 8080) == "web 2001:db8::2"
    assert query_whoami(outside_host, "192.0.2.1", 5353, protocol="udp") == "dns 192.0.2.2"
    assert query_whoami(outside_host, "2001:db8::1", 5353, protocol="udp") == "dns 2001:db8::2"
    assert query_whoami(outside_host, "192.0.2.1", 80) == ""
    assert query_whoami(outside_host, "192.0.2.1", 5353) == ""  # published for UDP only


@by_backend
def test_port_is_not_reachable_after_del(web: Container, outside_host: Container, backend: str) -> None:
    runner = publish(web, WEB, backend=backend)
    runner.delete()
    assert query_whoami(outside_host, "192.0.2.1", 8080) == ""
    assert query_whoami(outside_host, "2001:db8::1", 8080) == ""
    assert query_whoami(outside_host, "10.1.0.2", 80) == "web 192.0.2.2"


@by_backend
def test_host_reaches_the_port_on_all_its_addresses(web: Container, outside_host: Container, backend: str) -> None:
    publish(web, WEB, backend=backend)
    host = web.host
    assert query_whoami(host, "192.0.2.1", 8080) == "web 192.0.2.1"
    assert query_whoami(host, "10.1.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(host, "127.0.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(host, "2001:db8::1", 8080) == "web 2001:db8::1"


def test_connection_to_ipv6_loopback_is_refused_immediately(web: Container, host: Host) -> None:
    """Packets from ::1 cannot leave the host. Clients that try ::1 first continue with 127.0.0.1."""
    publish(web, WEB)
    with socket.socket(socket.AF_INET6) as client, pytest.raises(ConnectionRefusedError):
        client.settimeout(5)
        client.connect(("::1", 8080))


@by_backend
def test_container_and_neighbours_reach_the_host_port_by_hairpin_nat(
    web: Container, neighbour: Container, outside_host: Container, backend: str
) -> None:
    publish(web, WEB, DNS, backend=backend)
    bridge_result(neighbour, 3)
    for address, gateway in (("192.0.2.1", "10.1.0.1"), ("2001:db8::1", "fd00:1::1")):
        for client in (web, neighbour):
            assert query_whoami(client, address, 8080) == f"web {gateway}"
            assert query_whoami(client, address, 5353, protocol="udp") == f"dns {gateway}"
    # Direct connections to the container are not masqueraded.
    assert query_whoami(neighbour, "10.1.0.2", 80) == "web 10.1.0.3"


@by_backend
def test_forwarded_connections_to_the_same_port_are_not_translated(
    web: Container, neighbour: Container, outside_host: Container, backend: str
) -> None:
    """CVE-2025-67499."""
    publish(web, WEB, backend=backend)
    bridge_result(neighbour, 3)
    with run_whoami(neighbour, 8080, "other"), run_whoami(neighbour, 8080, "other", address="::"):
        assert query_whoami(outside_host, "10.1.0.3", 8080) == "other 192.0.2.2"
        assert query_whoami(outside_host, "fd00:1::3", 8080) == "other 2001:db8::2"
        assert query_whoami(web.host, "10.1.0.3", 8080) == "other 10.1.0.1"
    with run_whoami(outside_host, 8080, "outside"), run_whoami(outside_host, 8080, "outside", address="::"):
        assert query_whoami(web, "192.0.2.2", 8080) == "outside 10.1.0.2"
        assert query_whoami(web.host, "192.0.2.2", 8080) == "outside 192.0.2.1"
        assert query_whoami(web.host, "2001:db8::2", 8080) == "outside 2001:db8::1"


@by_backend
def test_service_address_is_not_translated(
    web: Container, neighbour: Container, outside_host: Container, backend: str
) -> None:
    """A DNAT rule like kube-proxy's, for a virtual address and a port that is also a host port, takes effect."""
    host = web.host
    publish(web, WEB, backend=backend)
    bridge_result(neighbour, 3)
    host.run("ip route add default via 192.0.2.2")
    host.run(
        "nft 'table ip kube { chain pre { type nat hook prerouting priority -90;"
        " ip daddr 10.96.0.1 tcp dport 8080 dnat to 10.1.0.2:80; }\n"
        "chain out { type nat hook output priority -90; ip daddr 10.96.0.1 tcp dport 8080 dnat to 10.1.0.3:80; }\n }'"
    )
    with run_whoami(neighbour, 80, "other"):
        assert query_whoami(outside_host, "10.96.0.1", 8080) == "web 192.0.2.2"
        assert query_whoami(host, "10.96.0.1", 8080).startswith("other ")


@by_backend
def test_host_ip_restricts_the_port_to_one_address(web: Container, outside_host: Container, backend: str) -> None:
    publish(
        web,
        {**WEB, "hostIP": "192.0.2.3"},
        {**WEB, "hostPort": 8081, "hostIP": "2001:db8::1"},
        {**WEB, "hostPort": 8082, "hostIP": "127.0.0.1"},
        backend=backend,
    )
    assert query_whoami(outside_host, "192.0.2.3", 8080) == "web 192.0.2.2"
    assert query_whoami(outside_host, "192.0.2.1", 8080) == ""
    assert query_whoami(outside_host, "2001:db8::1", 8080) == ""
    assert query_whoami(outside_host, "2001:db8::1", 8081) == "web 2001:db8::2"
    assert query_whoami(outside_host, "192.0.2.3", 8081) == ""
    assert query_whoami(web.host, "127.0.0.1", 8082) == "web 10.1.0.1"
    assert query_whoami(outside_host, "192.0.2.1", 8082) == ""


@by_backend
def test_unspecified_host_ip_publishes_on_all_addresses_of_its_family(
    web: Container, outside_host: Container, backend: str
) -> None:
    publish(web, {**WEB, "hostIP": "0.0.0.0"}, {**WEB, "hostPort": 8081, "hostIP": "::"}, backend=backend)
    assert (
        query_whoami(outside_host, "192.0.2.1", 8080)
        == query_whoami(outside_host, "192.0.2.3", 8080)
        == "web 192.0.2.2"
    )
    assert query_whoami(outside_host, "2001:db8::1", 8080) == ""
    assert query_whoami(outside_host, "2001:db8::1", 8081) == "web 2001:db8::2"
    assert query_whoami(outside_host, "192.0.2.1", 8081) == ""


@by_backend
@pytest.mark.parametrize("host_ip", ["", None])
def test_empty_host_ip_publishes_on_all_addresses_of_both_families(
    web: Container, outside_host: Container, backend: str, host_ip: str | None
) -> None:
    publish(web, {**WEB, "hostIP": host_ip}, backend=backend)
    assert query_whoami(outside_host, "192.0.2.3", 8080) == "web 192.0.2.2"
    assert query_whoami(outside_host, "2001:db8::1", 8080) == "web 2001:db8::2"


@by_backend
def test_no_connection_is_masqueraded_without_snat(
    web: Container, neighbour: Container, outside_host: Container, backend: str
) -> None:
    runner = publish(web, WEB, backend=backend, snat=False)
    bridge_result(neighbour, 3)
    assert query_whoami(outside_host, "192.0.2.1", 8080) == "web 192.0.2.2"
    # The client drops the answer, which has the container's address, unless br_netfilter makes bridged packets pass the
    # firewall.
    assert query_whoami(neighbour, "192.0.2.1", 8080, seconds=0.3) in ("", "web 10.1.0.3")
    assert query_whoami(web.host, "127.0.0.1", 8080, seconds=0.3) == ""
    assert web.host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "0"
    runner.check()


@by_backend
def test_masq_all_masquerades_every_client(web: Container, outside_host: Container, backend: str) -> None:
    runner = publish(web, WEB, DNS, backend=backend, masqAll=True)
    assert query_whoami(outside_host, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(outside_host, "2001:db8::1", 8080) == "web fd00:1::1"
    assert query_whoami(outside_host, "192.0.2.1", 5353, protocol="udp") == "dns 10.1.0.1"
    assert query_whoami(web.host, "127.0.0.1", 8080) == "web 10.1.0.1"
    assert query_whoami(web, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(outside_host, "10.1.0.2", 80) == "web 192.0.2.2"
    runner.check()


def test_mark_masq_bit_sets_the_bit_of_the_mark(web: Container, neighbour: Container, outside_host: Container) -> None:
    runner = publish(web, WEB, backend="iptables", markMasqBit=5)
    bridge_result(neighbour, 3)
    assert "--set-xmark 0x20/0x20" in web.host.run("iptables-save -t nat")
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    runner.check()


def test_external_set_mark_chain_is_used_instead_of_portmaps_own_chain(
    web: Container, neighbour: Container, outside_host: Container
) -> None:
    """The chain may be kube-proxy's."""
    host = web.host
    for program in ("iptables", "ip6tables"):
        host.run(f"{program} -t nat -N KUBE-MARK && {program} -t nat -A KUBE-MARK -j MARK --set-xmark 0x4000/0x4000")
        host.run(f"{program} -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
    runner = publish(web, WEB, externalSetMarkChain="KUBE-MARK")
    bridge_result(neighbour, 3)
    assert "CNI-HOSTPORT-SETMARK" not in host.run("iptables-save -t nat")
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    assert query_whoami(neighbour, "2001:db8::1", 8080) == "web fd00:1::1"
    runner.check()


def test_error_names_a_missing_external_set_mark_chain(container: Container) -> None:
    with pytest.raises(CniError, match='externalSetMarkChain "KUBE-MARK" does not exist in table nat of iptables'):
        publish(container, WEB, externalSetMarkChain="KUBE-MARK")
    assert "CNI-" not in container.host.run("iptables-save -t nat")


@pytest.mark.parametrize(
    "conditions",
    [
        {"conditionsV4": ["!", "-s", "192.0.2.2"], "conditionsV6": ["!", "-s", "2001:db8::2"]},
        {"conditionsV4": ["ip", "saddr", "!=", "192.0.2.2"], "conditionsV6": ["ip6", "saddr", "!=", "2001:db8::2"]},
    ],
    ids=["iptables", "nftables"],
)
def test_conditions_restrict_clients(
    web: Container, neighbour: Container, outside_host: Container, conditions: dict[str, Any]
) -> None:
    """The syntax of the conditions selects the backend."""
    runner = publish(web, WEB, **conditions)
    bridge_result(neighbour, 3)
    outside_host.run("ip addr add 192.0.2.4/29 dev eth0 && ip addr add 2001:db8::4/64 dev eth0 nodad")
    wait_for(lambda: neighbour.pings("2001:db8::4"), "the new address to be reachable")
    for address, denied, other in (
        ("192.0.2.1", "192.0.2.2", "192.0.2.4"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::4"),
    ):
        assert query_whoami(outside_host, address, 8080, source=(denied, 0)) == ""
        assert query_whoami(outside_host, address, 8080, source=(other, 0)) == f"web {other}"
    assert query_whoami(neighbour, "192.0.2.1", 8080) == "web 10.1.0.1"
    runner.check()
    runner.delete()
    assert query_whoami(outside_host, "192.0.2.1", 8080) == ""
    assert "container-" not in web.host.run("nft list ruleset")


@by_backend
def test_packets_from_outside_to_loopback_addresses_are_dropped(
    web: Container, neighbour: Container, backend: str
) -> None:
    """containernetworking/plugins#729: route_localnet makes services on 127.0.0.1 reachable for neighbours."""
    host = web.host
    publish(web, WEB, backend=backend)
    bridge_result(neighbour, 3)
    neighbour.run("sysctl -q net.ipv4.conf.eth0.route_localnet=1 net.ipv4.conf.all.rp_filter=0")
    neighbour.run(
        "ip route add 127.0.0.9 via 10.1.0.1 dev eth0 && ip route del local 127.0.0.0/8 dev lo table local", check=False
    )
    with run_whoami(host, 99, "private", protocol="udp", address="127.0.0.9"):
        assert query_whoami(host, "127.0.0.9", 99, protocol="udp").startswith("private")
        assert query_whoami(neighbour, "127.0.0.9", 99, protocol="udp", seconds=0.5) == ""
        # The packet is accepted without the rule.
        host.run("nft flush chain inet pycni martians" if backend == "nftables" else "iptables -t raw -F")
        assert query_whoami(neighbour, "127.0.0.9", 99, protocol="udp").startswith("private")


def test_last_del_resets_route_localnet_and_removes_its_rule(containers: list[Container]) -> None:
    host = containers[0].host

    def state() -> tuple[str, bool]:
        return host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip(), '"br0"' in guarded_bridges()

    def guarded_bridges() -> str:
        return host.run("nft list set inet pycni guarded")

    first = publish(containers[0], WEB)
    second = publish(containers[1], {**WEB, "hostPort": 8081}, last=3)
    first.delete()
    assert state() == ("1", True)
    second.delete()
    assert state() == ("0", False)


def test_route_localnet_set_by_the_administrator_is_kept(container: Container) -> None:
    host = container.host
    result = bridge_result(container)
    host.run("sysctl -q net.ipv4.conf.br0.route_localnet=1")
    runner = publish(container, WEB, prevResult=result)
    runner.delete()
    assert host.run("cat /proc/sys/net/ipv4/conf/br0/route_localnet").strip() == "1"


@by_backend
def test_rules_for_sctp_are_created(web: Container, backend: str) -> None:
    publish(web, {**WEB, "protocol": "sctp"}, backend=backend).check()


@pytest.mark.needs_kernel("sctp")
@by_backend
def test_sctp_port_is_reachable(web: Container, outside_host: Container, backend: str) -> None:
    publish(web, {**WEB, "protocol": "sctp"}, backend=backend)
    with web.netns.enter():
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    with outside_host.netns.enter():
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
def test_many_ports_are_published(web: Container, outside_host: Container, backend: str) -> None:
    """iptables accepts at most 15 ports per rule."""
    runner = publish(web, *({**WEB, "hostPort": 9000 + number} for number in range(40)), backend=backend)
    for port in (9000, 9014, 9015, 9039):
        assert query_whoami(outside_host, "192.0.2.1", port) == "web 192.0.2.2"
    runner.check()
    runner.delete()
    assert query_whoami(outside_host, "192.0.2.1", 9039) == ""


def test_keys_are_case_insensitive(web: Container, outside_host: Container) -> None:
    """containerd writes them with capital letters."""
    publish(web, {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""})
    assert query_whoami(outside_host, "192.0.2.1", 8080) == "web 192.0.2.2"


@pytest.mark.parametrize(
    "config",
    [
        {"runtimeConfig": {"portMappings": None}},
        {"runtimeConfig": {"portMappings": []}},
        {"runtimeConfig": None},
        {"runtimeConfig": {"portMappings": [WEB]}, "prevResult": {"cniVersion": "1.1.0"}},
    ],
)
def test_add_without_mappings_or_addresses_changes_nothing(container: Container, config: dict[str, Any]) -> None:
    host = container.host
    result = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}
    runner = PluginRunner("portmap", container, **{"prevResult": result, "backend": "iptables", **config})
    assert runner.add() == runner.config["prevResult"]
    runner.check()
    runner.delete()
    assert host.run("nft list ruleset") == ""


def test_ports_lead_to_the_interfaces_first_address_of_each_family(web: Container, outside_host: Container) -> None:
    result = bridge_result(web)
    other_interface = {"address": "10.9.9.9/24", "interface": 0}
    result["ips"] = [other_interface, *result["ips"], {"address": "10.1.0.99/24", "interface": 2}]
    publish(web, WEB, prevResult=result)
    assert query_whoami(outside_host, "192.0.2.1", 8080) == "web 192.0.2.2"


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
def test_error_for_an_invalid_mapping_names_it(container: Container, config: dict[str, Any], message: str) -> None:
    mappings = [WEB, {**WEB, "hostPort": 8081, **config}]
    runner = PluginRunner("portmap", container, runtimeConfig={"portMappings": mappings})
    with pytest.raises(CniError, match=message) as caught:
        runner.add()
    assert caught.value.code == 7
    runner.delete()


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
        ({"conditionsV4": ["ip saddr 10.0.0.1;", "flush ruleset"]}, "conditionsV4: conditions must not contain"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option(
    container: Container, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CniError, match=message) as caught:
        publish(container, WEB, **config)
    assert caught.value.code == 7


def test_add_and_check_require_prev_result(container: Container) -> None:
    runner = PluginRunner("portmap", container, runtimeConfig={"portMappings": [WEB]})
    with pytest.raises(CniError, match="must be called as chained plugin"):
        runner.add()
    with pytest.raises(CniError, match="prevResult"):
        runner.check()
