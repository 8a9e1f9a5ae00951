"""bridge: regression tests, mostly for faults of the Go plugin (docs/reference/plugins.md#bridge)."""

import os
import socket
import struct
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for
from pycni.testing.snapshot import of_host

GATEWAY: dict[str, Any] = {"bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}


def gateway_runner(container: Container, last: int = 2, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """Return a runner with masquerading and macspoofchk, and addresses that end in `last`, before its ADD."""
    addresses = [{"address": f"10.1.0.{last}/24"}, {"address": f"fd00:1::{last}/64"}]
    ipam = {"type": "static", "addresses": addresses}
    return PluginRunner("bridge", container, ifname=ifname, **{**GATEWAY, "ipam": ipam, **config})


def elements(host: Host) -> list[str]:
    """Return the lines of pycni's nftables tables that contain the label of an attachment."""
    return [line for line in host.run("nft list ruleset").splitlines() if "net: test" in line]


def executable_ipam(host: Host, script: str) -> dict[str, str]:
    """Create an IPAM plugin that logs each verb in ipam.log and runs `script` with sh.

    Return its configuration.
    """
    binary = host.state / "bin" / "scripted"
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(f"#!/bin/sh\necho $CNI_COMMAND >> {host.state}/ipam.log\ncat > /dev/null\n{script}\n")
    binary.chmod(0o755)
    return {"type": "scripted"}


def verbs(host: Host) -> list[str]:
    return (host.state / "ipam.log").read_text().split()


RETURN_ONE_ADDRESS = """
if [ $CNI_COMMAND = ADD ]; then echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/24"}]}'; fi
"""


def test_gc_removes_links_and_rules_without_a_valid_attachment(containers: list[Container]) -> None:
    host, runners = containers[0].host, [gateway_runner(c, last) for last, c in enumerate(containers, start=2)]
    for runner in runners:
        runner.add()
    alive, *dead = runners
    alive.gc(alive)
    for runner in dead:
        assert runner.owner.host_ifname not in host.run("ip -br link")
        assert "eth0" not in runner.container.run("ip -br link")
    assert all(alive.owner.key in line for line in elements(host))
    assert len(elements(host)) == 4
    alive.check()


def test_gc_keeps_attachments_of_other_networks(containers: list[Container]) -> None:
    own, other = gateway_runner(containers[0]), gateway_runner(containers[1], 3, name="other")
    own.add()
    other.add()
    own.gc()
    other.check()


def test_gc_without_valid_attachments_key_removes_nothing(container: Container) -> None:
    runner = gateway_runner(container)
    runner.add()
    runner._call("GC")
    runner.check()


def test_status_calls_ipam(container: Container) -> None:
    not_ready = """echo '{"code": 50, "msg": "the pool is dry"}'; exit 1"""
    runner = PluginRunner("bridge", container, ipam=executable_ipam(container.host, not_ready))
    with pytest.raises(CniError, match="the pool is dry") as caught:
        runner.status()
    assert caught.value.code == 50


def test_own_namespace_of_the_host_is_refused_before_anything_changes(container: Container) -> None:
    runner = gateway_runner(container)
    runner.netns = f"/proc/{os.getpid()}/ns/net"
    before = of_host(container.host)
    with pytest.raises(CniError, match="should not be the same") as caught:
        runner.add()
    assert caught.value.code == 8
    assert of_host(container.host) == before


def test_add_succeeds_after_a_failed_add(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge && ip addr add 10.7.0.1/24 dev br0")
    with pytest.raises(CniError, match="already has an IP address"):
        gateway_runner(container).add()
    assert "eth0" not in container.run("ip -br link")
    host.run("ip addr flush dev br0")
    gateway_runner(container).add()


def test_no_link_is_left_if_ipam_fails(container: Container) -> None:
    ipam = executable_ipam(container.host, """echo '{"code": 11, "msg": "busy", "details": "later"}'; exit 1""")
    with pytest.raises(CniError, match="busy") as caught:
        PluginRunner("bridge", container, bridge="br0", ipam=ipam).add()
    assert (caught.value.code, caught.value.msg) == (11, "busy")
    assert "eth0" not in container.run("ip -br link")
    assert "veth" not in container.host.run("ip -br link")
    assert verbs(container.host) == ["ADD", "DEL"]  # SPEC section 4: DEL after a failed delegated ADD


@pytest.mark.parametrize(
    "change",
    [
        {"mtu": "many"},
        {"hairpinMode": True, "promiscMode": True},
        {"ipMasqBackend": "gone"},
        {"vlanTrunk": [{"minID": 9}]},
        {"runtimeConfig": {"mac": "zz"}},
        {"prevResult": {"cniVersion": "1.1.0", "ips": "none"}},
        {"dns": 7},
    ],
)
def test_del_succeeds_with_an_invalid_configuration(container: Container, change: dict[str, Any]) -> None:
    runner = gateway_runner(container)
    runner.add()
    runner.config |= change
    runner.cni_args = "NONSENSE"
    runner.forget()
    runner.delete()
    assert "eth0" not in container.run("ip -br link")
    assert elements(container.host) == []


def test_ipam_del_is_called_if_ipam_returns_no_address(container: Container) -> None:
    ipam = executable_ipam(container.host, """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.1.0"}'; true""")
    with pytest.raises(CniError, match="IPAM plugin returned missing IP config"):
        PluginRunner("bridge", container, ipam=ipam).add()
    assert verbs(container.host) == ["ADD", "DEL"]


def nat(host: Host) -> list[str]:
    """Return the lines of iptables-save and ip6tables-save, table nat, that name the network."""
    lines = [*host.run("iptables-save -t nat").splitlines(), *host.run("ip6tables-save -t nat").splitlines()]
    return [line for line in lines if r"name: \"test\"" in line or line.startswith(":CNI-")]


@pytest.mark.parametrize("with_prev_result", [True, False])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_of_one_interface_keeps_the_masquerade_rules_of_the_other(
    container: Container, backend: str, *, with_prev_result: bool
) -> None:
    first = gateway_runner(container, 2, "eth0", ipMasqBackend=backend)
    second = gateway_runner(container, 3, "eth1", ipMasqBackend=backend, isDefaultGateway=False, isGateway=True)
    first.add()
    second.add()
    if not with_prev_result:
        first.forget()
    first.delete()
    second.check()
    sources = [line for line in nat(container.host) if "-A POSTROUTING" in line]
    assert len(sources) == (2 if backend == "iptables" else 0)
    assert len(elements(container.host)) == (2 if backend == "iptables" else 4)
    second.delete()
    assert nat(container.host) == elements(container.host) == []


@pytest.mark.parametrize("with_prev_result", [True, False])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_removes_masquerade_rules_of_a_flushed_address(
    container: Container, backend: str, *, with_prev_result: bool
) -> None:
    runner = gateway_runner(container, ipMasqBackend=backend)
    runner.add()
    container.run("ip addr flush dev eth0")
    if not with_prev_result:
        runner.forget()
    runner.delete()
    assert nat(container.host) == elements(container.host) == []


def test_del_removes_rules_of_the_previous_backend(container: Container) -> None:
    runner = gateway_runner(container, ipMasqBackend="iptables")
    runner.add()
    runner.config["ipMasqBackend"] = "nftables"
    with pytest.raises(CniError, match="is missing in nftables"):
        runner.check()
    runner.delete()
    assert nat(container.host) == elements(container.host) == []


def test_gc_removes_iptables_rules_without_a_valid_attachment(containers: list[Container]) -> None:
    alive, dead, _ = (
        gateway_runner(each, last, ipMasqBackend="iptables") for last, each in enumerate(containers, start=2)
    )
    alive.add()
    dead.add()
    alive.gc(alive)
    alive.check()
    assert len([line for line in nat(dead.container.host) if "-A POSTROUTING" in line]) == 2


def test_status_fails_with_code_50_if_the_backend_is_unavailable(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:

    runner = gateway_runner(container, ipMasqBackend="iptables", macspoofchk=False)
    runner.status()
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="iptables is not available") as caught:
        runner.status()
    assert caught.value.code == 50
    runner.config["ipMasqBackend"] = ""
    runner.status()


@pytest.mark.parametrize("with_prev_result", [True, False])
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/hostname"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_without_a_namespace_removes_the_state_of_the_host(
    container: Container, netns: str, backend: str, *, with_prev_result: bool
) -> None:
    runner = gateway_runner(container, ipam=executable_ipam(container.host, RETURN_ONE_ADDRESS), ipMasqBackend=backend)
    runner.add()
    if not with_prev_result:
        runner.forget()
    runner.netns = netns
    runner.delete()
    assert nat(container.host) == elements(container.host) == []
    assert runner.owner.host_ifname not in container.host.run("ip -br link")
    assert verbs(container.host) == ["ADD", "DEL"]


def test_macspoofchk_chains_of_the_go_plugin_are_checked_and_removed(
    containers: list[Container], go_runner: type[PluginRunner]
) -> None:
    """They name container and interface but no network, so GC removes those without a port."""
    host, ipam = containers[0].host, {"type": "host-local", "subnet": "10.1.0.0/24"}
    options: dict[str, Any] = {"bridge": "br0", "isGateway": True, "macspoofchk": True, "ipam": ipam}
    alive, without_port, deleted = (go_runner("bridge", each, **options) for each in containers)
    for by_go in (alive, without_port, deleted):
        by_go.add()
    by_pycni = [PluginRunner("bridge", each, **options) for each in containers]
    for runner, by_go in zip(by_pycni, (alive, without_port, deleted), strict=True):
        runner.result = by_go.result
        runner.check()
    by_pycni[2].netns = ""
    by_pycni[2].delete()
    host.run(f"ip link del {(without_port.result or {})['interfaces'][1]['name']}")
    by_pycni[0].gc(by_pycni[0])
    left = host.run("nft list table bridge nat")
    assert [each.id in left for each in containers] == [True, False, False]
    by_pycni[0].check()
    host.run(f"nft flush chain bridge nat cni-br-iface-{containers[0].id}-eth0-mac")
    with pytest.raises(CniError, match="spoof check of .* is missing"):
        by_pycni[0].check()


def test_del_keeps_the_interface_of_a_new_container_in_a_reused_namespace(container: Container) -> None:
    old, new = gateway_runner(container, 2), gateway_runner(container, 3)
    old.add()
    old.container.host.run(f"ip link del {old.owner.host_ifname}")
    old_id = container.id
    container.id = "the-new-one"
    new.add()
    new_id, container.id = container.id, old_id
    old.delete()
    container.id = new_id
    new.check()


def test_del_deletes_a_veth_pair_without_label(host: Host, container: Container) -> None:
    """The Go plugin creates it with a random name on the host and without a label."""
    host.run(f"ip link add vethdeadbeef type veth peer name eth0 netns {container.path}")
    gateway_runner(container).delete()
    assert "vethdeadbeef" not in host.run("ip -br link")


@pytest.mark.usefixtures("without_vlan_filtering")
def test_existing_bridge_is_refused_if_the_kernel_lacks_vlan_filtering(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    with pytest.raises(CniError, match="no bridge VLAN filtering"):
        PluginRunner("bridge", container, bridge="br0", vlan=7).add()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_vlan_filtering_is_enabled_on_an_existing_bridge(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    PluginRunner("bridge", container, bridge="br0", vlan=7).add()
    (bridge,) = host.json("ip -j -d link show br0")
    assert bridge["linkinfo"]["info_data"]["vlan_filtering"] == 1


def test_default_routes_of_ipam_and_is_default_gateway_can_be_combined(container: Container) -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}], "routes": routes}
    runner = PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam)
    runner.add()
    assert [route["gateway"] for route in container.json("ip -j route show default")] == ["10.1.0.1"]
    assert [route["gateway"] for route in container.json("ip -j -6 route show default")] == ["fd00:1::1"]
    runner.check()


def test_bridge_without_ports_keeps_its_mac(host: Host, container: Container) -> None:
    def mac() -> str:
        return str(host.json("ip -j link show br0")[0]["address"])

    without_ipam = PluginRunner("bridge", container, bridge="br0")
    without_ipam.add()
    before = mac()
    without_ipam.delete()
    assert mac() == before
    gateway = gateway_runner(container)
    gateway.add()
    assert mac() == before
    gateway.check()


@pytest.mark.parametrize("options", [{"ipam": {}}, {}], ids=["layer 2", "gateway"])
def test_existing_bridge_keeps_its_mac_when_ports_are_added_and_removed(
    host: Host, containers: list[Container], options: dict[str, Any]
) -> None:
    host.run("ip link add br0 type bridge && ip link set br0 up")
    mac = host.json("ip -j link show br0")[0]["address"]
    runners = [gateway_runner(each, last, **options) for last, each in enumerate(containers, start=2)]
    for runner in runners:
        assert runner.add()["interfaces"][0]["mac"] == mac
    assert host.json("ip -j link show br0")[0]["address"] == mac
    for runner in runners:
        runner.check()
    runners[0].delete()
    assert host.json("ip -j link show br0")[0]["address"] == mac


def test_bridge_without_a_mac_gets_one(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    host.run("ip link add p0 type veth peer name p1 && ip link set p0 master br0 && ip link del p0")
    gateway_runner(container).add()
    assert host.json("ip -j link show br0")[0]["address"] != "00:00:00:00:00:00"


@pytest.mark.parametrize("number", [{"priority": -1}, {"table": 1 << 32}, {"scope": 256}, {"mtu": 1 << 32}])
def test_error_names_a_route_attribute_that_is_out_of_range(container: Container, number: dict[str, int]) -> None:
    addresses, routes = [{"address": "10.1.0.2/24"}], [{"dst": "10.9.0.0/16", **number}]
    runner = PluginRunner("bridge", container, ipam={"type": "static", "addresses": addresses, "routes": routes})
    ((name, value),) = number.items()
    with pytest.raises(CniError, match=rf"the route to 10\.9\.0\.0/16 cannot have {name} {value}") as caught:
        runner.add()
    assert caught.value.code == 7


def test_mtu_advmss_and_priority_of_a_route_are_set(container: Container) -> None:
    routes = [{"dst": "10.8.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 50}]
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}], "routes": routes}
    PluginRunner("bridge", container, ipam=ipam).add()
    (route,) = container.json("ip -j route show 10.8.0.0/16")
    assert route["metric"] == 50
    assert route["gateway"] == "10.1.0.1"
    assert route["metrics"] == [{"mtu": 1300, "advmss": 1200}]


UNUSUAL = [
    pytest.param([{"address": "10.1.0.2/32"}, {"address": "fd00:1::2/128"}], [], id="host prefixes"),
    pytest.param(
        [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
        [{"dst": "10.8.0.0/16", "table": 300}, {"dst": "10.9.0.0/16", "table": 7}],
        id="tables",
    ),
    pytest.param(
        [{"address": "fd00:1::2/64"}],
        [{"dst": "fd00:8::/64", "gw": "fd00:1::3"}, {"dst": "fd00:8::/64", "gw": "fd00:1::4"}],
        id="several gateways",
    ),
    pytest.param(
        [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
        [{"dst": "10.8.0.0/16", "scope": 253, "gw": "0.0.0.0"}],
        id="link scope",
    ),
]


@pytest.mark.parametrize(("addresses", "routes"), UNUSUAL)
def test_check_succeeds_with_unusual_addresses_and_routes(
    container: Container, addresses: list[Any], routes: list[Any]
) -> None:
    runner = PluginRunner("bridge", container, ipam={"type": "static", "addresses": addresses, "routes": routes})
    runner.add()
    runner.check()


def test_check_fails_if_the_default_gateway_differs(container: Container) -> None:
    runner = gateway_runner(container)
    runner.add()
    container.run("ip route replace default via 10.1.0.77")
    with pytest.raises(CniError, match=r"eth0 has lost the route to 0\.0\.0\.0/0 via 10\.1\.0\.1"):
        runner.check()


def test_check_ignores_addresses_of_other_interfaces(container: Container) -> None:
    runner = gateway_runner(container)
    result = runner.add()
    result["interfaces"].append({"name": "net9", "sandbox": container.path})
    result["ips"].append({"address": "10.99.0.9/24", "interface": 3})
    runner.check()


def test_check_succeeds_without_ipam(container: Container) -> None:
    runner = PluginRunner("bridge", container, bridge="br0")
    runner.add()
    runner.check()


CHANGES = [
    ("ip -n {c} addr del 10.1.0.2/24 dev eth0", r"eth0 has lost 10\.1\.0\.2/24"),
    ("ip -n {c} link set eth0 address 02:00:00:00:00:07", "eth0 should have mac"),
    ("ip -n {c} link set eth0 down", "eth0 "),
    ("ip link set {port} nomaster", "should have master"),
    ("ip link set {port} type bridge_slave hairpin on", "should have hairpin"),
    ("ip link set {port} type bridge_slave isolated on", "should have isolated"),
    ("ip link set br0 address 02:00:00:00:00:08", "br0 should have mac"),
    ("ip link set br0 down", "br0 should have up True"),
    ("ip addr del 10.1.0.1/24 dev br0", r"br0 has lost 10\.1\.0\.1/24"),
    ("nft flush set inet pycni masquerade4-24", r"masquerading of 10\.1\.0\.2 is missing"),
    ("nft flush chain inet pycni postrouting", "chain postrouting .* has 0 of its 4 rules"),
    ("nft delete table inet pycni", r"masquerading of 10\.1\.0\.2 is missing"),
    ("nft flush set bridge pycni guarded", "spoof check .* is missing"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_check_reports_changes_of_links_addresses_and_rules(
    host: Host, container: Container, change: str, message: str
) -> None:
    runner = gateway_runner(container)
    runner.add()
    runner.check()
    if change.startswith("ip -n {c}"):
        container.run(change.replace(" -n {c}", ""))
    else:
        host.run(change.format(port=runner.owner.host_ifname))
    with pytest.raises(CniError, match=message):
        runner.check()


def test_addresses_are_announced_to_other_ports_of_the_bridge(containers: list[Container]) -> None:
    """A gratuitous ARP and an unsolicited neighbour advertisement are sent once the port forwards."""
    listener, newcomer, _ = containers
    gateway_runner(listener, 3).add()
    with listener.netns.enter():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with sniffer:
        sniffer.settimeout(0.05)
        sniffer.bind(("eth0", 0x0003))
        result = gateway_runner(newcomer, 2).add()
        mac = bytes.fromhex(result["interfaces"][2]["mac"].replace(":", ""))
        announced: set[str] = set()

        def announced_both() -> bool:
            try:
                frame = sniffer.recv(2048)
            except TimeoutError:
                return False
            if frame[6:12] != mac:
                return False
            if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] == bytes([10, 1, 0, 2]):
                announced.add("ARP")
            if frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88":
                target = socket.inet_ntop(socket.AF_INET6, frame[62:78])
                announced.add("NA" if target == "fd00:1::2" else target)
            return {"ARP", "NA"} <= announced

        wait_for(announced_both, "a gratuitous ARP and a neighbour advertisement")


def test_first_container_of_a_bridge_is_reachable_from_outside_immediately(
    container: Container, outside: Container
) -> None:
    """The host sends no neighbour solicitations on a new bridge until the bridge's own address is usable."""
    outside.run("ip route add 10.1.0.0/24 via 192.0.2.1 && ip route add fd00:1::/64 via 2001:db8::1")
    gateway_runner(container, ipMasq=False).add()
    assert outside.pings("fd00:1::2")
    assert outside.pings("10.1.0.2")


def router_advertisement(mac: bytes, source: str) -> bytes:
    """Return a frame that offers its sender as default router for half an hour."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    ip, all_nodes = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, "ff02::1")
    icmp = struct.pack("!BBH", 134, 0, 0) + body
    total = sum(struct.unpack(f"!{(40 + len(icmp)) // 2}H", ip + all_nodes + struct.pack("!II", len(icmp), 58) + icmp))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = struct.pack("!BBH", 134, 0, ~total & 0xFFFF) + body
    header = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + ip + all_nodes
    return b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + icmp


def test_router_advertisements_of_a_container_are_ignored_by_host_and_other_containers(
    containers: list[Container],
) -> None:
    """CVE-2020-10749."""
    attacker, victim, _ = containers
    host = attacker.host
    gateway_runner(attacker, 2, isDefaultGateway=False).add()
    gateway_runner(victim, 3, isDefaultGateway=False).add()
    addresses = attacker.json("ip -j addr show eth0")[0]["addr_info"]
    link_local = next(info["local"] for info in addresses if info["scope"] == "link")
    mac = bytes.fromhex(attacker.json("ip -j link show eth0")[0]["address"].replace(":", ""))

    def advertise() -> None:
        with attacker.netns.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind(("eth0", 0x86DD))
            channel.send(router_advertisement(mac, link_local))

    advertise()
    # A container that accepts advertisements obeys the same frame, so the frame has reached the others too.
    victim.run("sysctl -q net.ipv6.conf.eth0.accept_ra=2")
    wait_for(
        lambda: advertise() or victim.run("ip -6 route show default"), "a container that accepts the advertisement"
    )
    assert host.run("ip -6 route show default") == ""
    for name in ("br0", gateway_runner(attacker, 2).owner.host_ifname):
        assert host.run(f"cat /proc/sys/net/ipv6/conf/{name}/accept_ra").strip() == "0"
    assert attacker.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"


def test_existing_bridge_ignores_router_advertisements(container: Container) -> None:
    """CVE-2020-10749."""
    container.host.run("ip link add br0 type bridge && sysctl -q net.ipv6.conf.br0.accept_ra=1")
    gateway_runner(container, 2, isDefaultGateway=False).add()
    assert container.host.run("cat /proc/sys/net/ipv6/conf/br0/accept_ra").strip() == "0"


def test_ports_have_no_ipv6_addresses_and_routes(containers: list[Container]) -> None:
    """With a thousand ports, their routes would slow down each packet to all nodes and each DEL."""
    one, two, _ = containers
    port = gateway_runner(one, 2).owner.host_ifname
    for number, container in enumerate((one, two), 2):
        runner = gateway_runner(container, number)
        runner.config["ipam"] = {"type": "static", "addresses": [{"address": f"fd00:1::{number}/64"}]}
        runner.add()
        runner.check()
    assert one.host.run(f"ip -6 addr show dev {port}") == ""
    assert one.host.run(f"ip -6 route show table all dev {port}") == ""
    assert one.pings("fd00:1::3")
    assert one.pings("fd00:1::1")


def test_late_del_keeps_the_masquerade_rules_of_the_next_container_with_the_address(
    containers: list[Container],
) -> None:
    """Azure/azure-container-networking#885: state is found by attachment, not by address."""
    old, new = gateway_runner(containers[0], 2), gateway_runner(containers[1], 2)
    old.add()
    containers[0].host.run(f"ip link del {old.owner.host_ifname}")
    new.add()  # with the same address
    old.delete()
    new.check()


def test_add_and_check_succeed_on_a_host_without_ipv6(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """containernetworking/plugins#102: with ipv6.disable=1 the sysctls of IPv6 do not exist."""
    from pycni.kernel.netns import sysctl

    open_setting = sysctl._Settings._open

    def without_ipv6(self: sysctl._Settings, setting: str, flags: int) -> int:
        return open_setting(self, setting.replace("ipv6/", "absent/"), flags)

    monkeypatch.setattr(sysctl._Settings, "_open", without_ipv6)
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    runner = PluginRunner("bridge", container, isDefaultGateway=True, ipMasq=True, ipam=ipam)
    runner.add()
    runner.check()
