"""bridge: the stories behind what goes wrong elsewhere, each told once."""

import os
import socket
import struct
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for
from pycni.testing.snapshot import of_host

ROUTED: dict[str, Any] = {"bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}


def routed(container: Container, last: int = 2, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """A runtime for a masqueraded, spoof-checked attachment whose addresses end in `last`, before its ADD."""
    addresses = [{"address": f"10.1.0.{last}/24"}, {"address": f"fd00:1::{last}/64"}]
    ipam = {"type": "static", "addresses": addresses}
    return PluginRunner("bridge", container, ifname=ifname, **{**ROUTED, "ipam": ipam, **config})


def elements(host: Host) -> list[str]:
    """The lines of our nftables that name an owner."""
    return [line for line in host.run("nft list ruleset").splitlines() if "net: test" in line]


def executable_ipam(host: Host, script: str) -> dict[str, str]:
    """An IPAM plugin in the host's bin directory; `script` is run by sh, and every verb is noted in ipam.log."""
    binary = host.state / "bin" / "scripted"
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(f"#!/bin/sh\necho $CNI_COMMAND >> {host.state}/ipam.log\ncat > /dev/null\n{script}\n")
    binary.chmod(0o755)
    return {"type": "scripted"}


def verbs(host: Host) -> list[str]:
    return (host.state / "ipam.log").read_text().split()


GIVES_AN_ADDRESS = """
if [ $CNI_COMMAND = ADD ]; then echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/24"}]}'; fi
"""


def test_r01_gc_removes_what_no_valid_attachment_owns(containers: list[Container]) -> None:
    host, runtimes = containers[0].host, [routed(c, last) for last, c in enumerate(containers, start=2)]
    for runtime in runtimes:
        runtime.add()
    alive, *dead = runtimes
    alive.gc(alive)
    for runtime in dead:
        assert runtime.owner.host_ifname not in host.run("ip -br link")
        assert "eth0" not in runtime.container.run("ip -br link")
    assert all(alive.owner.key in line for line in elements(host))
    assert len(elements(host)) == 4
    alive.check()


def test_r01_gc_leaves_other_networks_alone(containers: list[Container]) -> None:
    mine, other = routed(containers[0]), routed(containers[1], 3, name="other")
    mine.add()
    other.add()
    mine.gc()
    other.check()


def test_r01_gc_without_a_list_removes_nothing(container: Container) -> None:
    runtime = routed(container)
    runtime.add()
    runtime._call("GC")
    runtime.check()


def test_r01_status_asks_ipam(container: Container) -> None:
    not_ready = """echo '{"code": 50, "msg": "the pool is dry"}'; exit 1"""
    runtime = PluginRunner("bridge", container, ipam=executable_ipam(container.host, not_ready))
    with pytest.raises(CniError, match="the pool is dry") as caught:
        runtime.status()
    assert caught.value.code == 50


def test_r02_the_hosts_own_namespace_is_refused_before_anything_is_done(container: Container) -> None:
    runtime = routed(container)
    runtime.netns = f"/proc/{os.getpid()}/ns/net"
    before = of_host(container.host)
    with pytest.raises(CniError, match="should not be the same") as caught:
        runtime.add()
    assert caught.value.code == 8
    assert of_host(container.host) == before


def test_r03_a_retry_after_a_failed_add_succeeds(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge && ip addr add 10.7.0.1/24 dev br0")
    with pytest.raises(CniError, match="already has an IP address"):
        routed(container).add()
    assert "eth0" not in container.run("ip -br link")
    host.run("ip addr flush dev br0")
    routed(container).add()


def test_r04_a_failing_ipam_leaves_no_link(container: Container) -> None:
    ipam = executable_ipam(container.host, """echo '{"code": 11, "msg": "busy", "details": "later"}'; exit 1""")
    with pytest.raises(CniError, match="busy") as caught:
        PluginRunner("bridge", container, bridge="br0", ipam=ipam).add()
    assert (caught.value.code, caught.value.msg) == (11, "busy")
    assert "eth0" not in container.run("ip -br link")
    assert "veth" not in container.host.run("ip -br link")
    assert verbs(container.host) == ["ADD", "DEL"]  # SPEC section 4: a delegate that failed is told so


@pytest.mark.parametrize(
    "damage",
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
def test_r05_a_configuration_that_has_become_wrong_does_not_block_delete(
    container: Container, damage: dict[str, Any]
) -> None:
    runtime = routed(container)
    runtime.add()
    runtime.config |= damage
    runtime.cni_args = "NONSENSE"
    runtime.forget()
    runtime.delete()
    assert "eth0" not in container.run("ip -br link")
    assert elements(container.host) == []


def test_r06_an_ipam_that_gives_no_address_is_told_to_release(container: Container) -> None:
    ipam = executable_ipam(container.host, """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.1.0"}'; true""")
    with pytest.raises(CniError, match="IPAM plugin returned missing IP config"):
        PluginRunner("bridge", container, ipam=ipam).add()
    assert verbs(container.host) == ["ADD", "DEL"]


def nat(host: Host) -> list[str]:
    """The lines of iptables, nat, that name the network."""
    lines = [*host.run("iptables-save -t nat").splitlines(), *host.run("ip6tables-save -t nat").splitlines()]
    return [line for line in lines if r"name: \"test\"" in line or line.startswith(":CNI-")]


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_r07_deleting_one_of_two_interfaces_leaves_the_others_nat(
    container: Container, backend: str, *, remembered: bool
) -> None:
    first = routed(container, 2, "eth0", ipMasqBackend=backend)
    second = routed(container, 3, "eth1", ipMasqBackend=backend, isDefaultGateway=False, isGateway=True)
    first.add()
    second.add()
    if not remembered:
        first.forget()
    first.delete()
    second.check()
    sources = [line for line in nat(container.host) if "-A POSTROUTING" in line]
    assert len(sources) == (2 if backend == "iptables" else 0)
    assert len(elements(container.host)) == (2 if backend == "iptables" else 4)
    second.delete()
    assert nat(container.host) == elements(container.host) == []


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_r08_masquerading_goes_even_if_the_address_was_flushed(
    container: Container, backend: str, *, remembered: bool
) -> None:
    runtime = routed(container, ipMasqBackend=backend)
    runtime.add()
    container.run("ip addr flush dev eth0")
    if not remembered:
        runtime.forget()
    runtime.delete()
    assert nat(container.host) == elements(container.host) == []


def test_the_backend_may_be_changed_while_a_container_lives(container: Container) -> None:
    runtime = routed(container, ipMasqBackend="iptables")
    runtime.add()
    runtime.config["ipMasqBackend"] = "nftables"
    with pytest.raises(CniError, match="is missing in nftables"):
        runtime.check()
    runtime.delete()
    assert nat(container.host) == elements(container.host) == []


def test_gc_removes_what_iptables_has_of_containers_that_are_gone(containers: list[Container]) -> None:
    alive, dead, _ = (routed(each, last, ipMasqBackend="iptables") for last, each in enumerate(containers, start=2))
    alive.add()
    dead.add()
    alive.gc(alive)
    alive.check()
    assert len([line for line in nat(dead.container.host) if "-A POSTROUTING" in line]) == 2


def test_status_says_if_the_backend_does_not_work(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:

    runtime = routed(container, ipMasqBackend="iptables", macspoofchk=False)
    runtime.status()
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="iptables is not available") as caught:
        runtime.status()
    assert caught.value.code == 50
    runtime.config["ipMasqBackend"] = ""
    runtime.status()


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/hostname"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_r09_r10_the_hosts_state_goes_without_the_namespace(
    container: Container, netns: str, backend: str, *, remembered: bool
) -> None:
    runtime = routed(container, ipam=executable_ipam(container.host, GIVES_AN_ADDRESS), ipMasqBackend=backend)
    runtime.add()
    if not remembered:
        runtime.forget()
    runtime.netns = netns
    runtime.delete()
    assert nat(container.host) == elements(container.host) == []
    assert runtime.owner.host_ifname not in container.host.run("ip -br link")
    assert verbs(container.host) == ["ADD", "DEL"]


def test_a_spoof_check_by_go_is_checked_and_removed(containers: list[Container], go_runner: type[PluginRunner]) -> None:
    """Its chains tell container and interface, and not the network: GC removes those of ports that are gone."""
    host, ipam = containers[0].host, {"type": "host-local", "subnet": "10.1.0.0/24"}
    options: dict[str, Any] = {"bridge": "br0", "isGateway": True, "macspoofchk": True, "ipam": ipam}
    kept, gone, deleted = (go_runner("bridge", each, **options) for each in containers)
    for theirs in (kept, gone, deleted):
        theirs.add()
    ours = [PluginRunner("bridge", each, **options) for each in containers]
    for runtime, theirs in zip(ours, (kept, gone, deleted), strict=True):
        runtime.result = theirs.result
        runtime.check()
    ours[2].netns = ""
    ours[2].delete()
    host.run(f"ip link del {(gone.result or {})['interfaces'][1]['name']}")
    ours[0].gc(ours[0])
    left = host.run("nft list table bridge nat")
    assert [each.id in left for each in containers] == [True, False, False]
    ours[0].check()
    host.run(f"nft flush chain bridge nat cni-br-iface-{containers[0].id}-eth0-mac")
    with pytest.raises(CniError, match="spoof check of .* is missing"):
        ours[0].check()


def test_a_reused_namespace_keeps_its_new_containers_interface(container: Container) -> None:
    old, new = routed(container, 2), routed(container, 3)
    old.add()
    old.container.host.run(f"ip link del {old.owner.host_ifname}")
    old_id = container.id
    container.id = "the-new-one"
    new.add()
    new_id, container.id = container.id, old_id
    old.delete()
    container.id = new_id
    new.check()


def test_a_cable_that_somebody_else_made_is_removed_too(host: Host, container: Container) -> None:
    """As the Go plugin makes it: a random name on the host, and no label."""
    host.run(f"ip link add vethdeadbeef type veth peer name eth0 netns {container.path}")
    routed(container).delete()
    assert "vethdeadbeef" not in host.run("ip -br link")


@pytest.mark.usefixtures("without_vlan_filtering")
def test_r13_an_existing_bridge_that_cannot_filter_vlans_is_refused(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    with pytest.raises(CniError, match="no bridge VLAN filtering"):
        PluginRunner("bridge", container, bridge="br0", vlan=7).add()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_r13_an_existing_bridge_is_made_to_filter_vlans(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    PluginRunner("bridge", container, bridge="br0", vlan=7).add()
    (bridge,) = host.json("ip -j -d link show br0")
    assert bridge["linkinfo"]["info_data"]["vlan_filtering"] == 1


def test_r14_a_default_route_from_ipam_and_is_default_gateway_agree(container: Container) -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}], "routes": routes}
    runtime = PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam)
    runtime.add()
    assert [route["gateway"] for route in container.json("ip -j route show default")] == ["10.1.0.1"]
    assert [route["gateway"] for route in container.json("ip -j -6 route show default")] == ["fd00:1::1"]
    runtime.check()


def test_r15_a_bridge_that_lost_its_last_port_keeps_its_address(host: Host, container: Container) -> None:
    def mac() -> str:
        return str(host.json("ip -j link show br0")[0]["address"])

    layer_two = PluginRunner("bridge", container, bridge="br0")
    layer_two.add()
    before = mac()
    layer_two.delete()
    assert mac() == before
    gateway = routed(container)
    gateway.add()
    assert mac() == before
    gateway.check()


@pytest.mark.parametrize("layer_two", [{"ipam": {}}, {}], ids=["layer 2", "gateway"])
def test_r15_a_bridge_of_others_keeps_its_address_whatever_is_plugged_in(
    host: Host, containers: list[Container], layer_two: dict[str, Any]
) -> None:
    host.run("ip link add br0 type bridge && ip link set br0 up")
    mac = host.json("ip -j link show br0")[0]["address"]
    runtimes = [routed(each, last, **layer_two) for last, each in enumerate(containers, start=2)]
    for runtime in runtimes:
        assert runtime.add()["interfaces"][0]["mac"] == mac
    assert host.json("ip -j link show br0")[0]["address"] == mac
    for runtime in runtimes:
        runtime.check()
    runtimes[0].delete()
    assert host.json("ip -j link show br0")[0]["address"] == mac


def test_r15_a_bridge_left_without_a_mac_gets_one(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge")
    host.run("ip link add p0 type veth peer name p1 && ip link set p0 master br0 && ip link del p0")
    routed(container).add()
    assert host.json("ip -j link show br0")[0]["address"] != "00:00:00:00:00:00"


@pytest.mark.parametrize("number", [{"priority": -1}, {"table": 1 << 32}, {"scope": 256}, {"mtu": 1 << 32}])
def test_a_number_of_a_route_that_the_kernel_has_no_room_for_is_named(
    container: Container, number: dict[str, int]
) -> None:
    addresses, routes = [{"address": "10.1.0.2/24"}], [{"dst": "10.9.0.0/16", **number}]
    runtime = PluginRunner("bridge", container, ipam={"type": "static", "addresses": addresses, "routes": routes})
    ((name, value),) = number.items()
    with pytest.raises(CniError, match=rf"the route to 10\.9\.0\.0/16 cannot have {name} {value}") as caught:
        runtime.add()
    assert caught.value.code == 7


def test_r31_the_mtu_and_advmss_of_a_route_are_applied(container: Container) -> None:
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
def test_r32_check_understands_unusual_addresses_and_routes(
    container: Container, addresses: list[Any], routes: list[Any]
) -> None:
    runtime = PluginRunner("bridge", container, ipam={"type": "static", "addresses": addresses, "routes": routes})
    runtime.add()
    runtime.check()


def test_r32_check_notices_a_wrong_default_gateway(container: Container) -> None:
    runtime = routed(container)
    runtime.add()
    container.run("ip route replace default via 10.1.0.77")
    with pytest.raises(CniError, match=r"eth0 has lost the route to 0\.0\.0\.0/0 via 10\.1\.0\.1"):
        runtime.check()


def test_r32_check_does_not_ask_for_the_addresses_of_other_interfaces(container: Container) -> None:
    runtime = routed(container)
    made = runtime.add()
    made["interfaces"].append({"name": "net9", "sandbox": container.path})
    made["ips"].append({"address": "10.99.0.9/24", "interface": 3})
    runtime.check()


def test_r34_check_works_without_ipam(container: Container) -> None:
    runtime = PluginRunner("bridge", container, bridge="br0")
    runtime.add()
    runtime.check()


DAMAGE = [
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


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_check_finds_what_is_really_wrong(host: Host, container: Container, damage: str, message: str) -> None:
    runtime = routed(container)
    runtime.add()
    runtime.check()
    if damage.startswith("ip -n {c}"):
        container.run(damage.replace(" -n {c}", ""))
    else:
        host.run(damage.format(port=runtime.owner.host_ifname))
    with pytest.raises(CniError, match=message):
        runtime.check()


def test_r54_the_neighbours_hear_of_the_address_once_the_port_forwards(containers: list[Container]) -> None:
    """A gratuitous ARP and an unsolicited neighbour advertisement reach another port of the bridge."""
    listener, newcomer, _ = containers
    routed(listener, 3).add()
    with listener.netns.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with tap:
        tap.settimeout(0.05)
        tap.bind(("eth0", 0x0003))
        result = routed(newcomer, 2).add()
        mac = bytes.fromhex(result["interfaces"][2]["mac"].replace(":", ""))
        heard: set[str] = set()

        def both() -> bool:
            try:
                frame = tap.recv(2048)
            except TimeoutError:
                return False
            if frame[6:12] != mac:
                return False
            if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] == bytes([10, 1, 0, 2]):
                heard.add("ARP")
            if frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88":
                target = socket.inet_ntop(socket.AF_INET6, frame[62:78])
                heard.add("NA" if target == "fd00:1::2" else target)
            return {"ARP", "NA"} <= heard

        wait_for(both, "an ARP and a neighbour advertisement")


def test_r52_what_comes_from_outside_reaches_the_first_container_of_a_bridge_at_once(
    container: Container, outside: Container
) -> None:
    """The host does not ask for neighbours on a new bridge before the bridge's own address is usable."""
    outside.run("ip route add 10.1.0.0/24 via 192.0.2.1 && ip route add fd00:1::/64 via 2001:db8::1")
    routed(container, ipMasq=False).add()
    assert outside.pings("fd00:1::2")
    assert outside.pings("10.1.0.2")


def router_advertisement(mac: bytes, source: str) -> bytes:
    """A frame that offers its sender as default router for half an hour."""
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    ip, all_nodes = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, "ff02::1")
    icmp = struct.pack("!BBH", 134, 0, 0) + body
    total = sum(struct.unpack(f"!{(40 + len(icmp)) // 2}H", ip + all_nodes + struct.pack("!II", len(icmp), 58) + icmp))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = struct.pack("!BBH", 134, 0, ~total & 0xFFFF) + body
    header = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + ip + all_nodes
    return b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + icmp


def test_cve_2020_10749_a_container_cannot_become_the_router_of_host_or_neighbours(containers: list[Container]) -> None:
    evil, victim, _ = containers
    host = evil.host
    routed(evil, 2, isDefaultGateway=False).add()
    routed(victim, 3, isDefaultGateway=False).add()
    addresses = evil.json("ip -j addr show eth0")[0]["addr_info"]
    link_local = next(info["local"] for info in addresses if info["scope"] == "link")
    mac = bytes.fromhex(evil.json("ip -j link show eth0")[0]["address"].replace(":", ""))

    def advertise() -> None:
        with evil.netns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind(("eth0", 0x86DD))
            channel.send(router_advertisement(mac, link_local))

    advertise()
    # The same frame convinces a container that does listen: so it has arrived when the others have ignored it.
    victim.run("sysctl -q net.ipv6.conf.eth0.accept_ra=2")
    wait_for(lambda: advertise() or victim.run("ip -6 route show default"), "the advertisement to work at all")
    assert host.run("ip -6 route show default") == ""
    for name in ("br0", routed(evil, 2).owner.host_ifname):
        assert host.run(f"cat /proc/sys/net/ipv6/conf/{name}/accept_ra").strip() == "0"
    assert evil.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"


def test_cve_2020_10749_a_bridge_that_was_there_refuses_them_too(container: Container) -> None:
    container.host.run("ip link add br0 type bridge && sysctl -q net.ipv6.conf.br0.accept_ra=1")
    routed(container, 2, isDefaultGateway=False).add()
    assert container.host.run("cat /proc/sys/net/ipv6/conf/br0/accept_ra").strip() == "0"


def test_a_port_has_no_ipv6_of_its_own(containers: list[Container]) -> None:
    """A thousand ports with routes of their own would slow down each packet to everybody, and each DEL."""
    one, two, _ = containers
    port = routed(one, 2).owner.host_ifname
    for number, container in enumerate((one, two), 2):
        runtime = routed(container, number)
        runtime.config["ipam"] = {"type": "static", "addresses": [{"address": f"fd00:1::{number}/64"}]}
        runtime.add()
        runtime.check()
    assert one.host.run(f"ip -6 addr show dev {port}") == ""
    assert one.host.run(f"ip -6 route show table all dev {port}") == ""
    assert one.pings("fd00:1::3")
    assert one.pings("fd00:1::1")


def test_a_late_del_of_an_old_container_does_not_free_the_new_ones_masquerade(containers: list[Container]) -> None:
    """Azure issue 885: things are found by attachment, not by what they are about."""
    old, new = routed(containers[0], 2), routed(containers[1], 2)
    old.add()
    containers[0].host.run(f"ip link del {old.owner.host_ifname}")
    new.add()  # IPAM gave it the same address again
    old.delete()
    new.check()


def test_the_host_without_ipv6_is_served(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 102 of the Go plugins: with ipv6.disable=1 the settings of IPv6 do not exist."""
    from pycni.kernel.netns import sysctl

    real = sysctl._Settings._open

    def without_ipv6(self: sysctl._Settings, setting: str, flags: int) -> int:
        return real(self, setting.replace("ipv6/", "absent/"), flags)

    monkeypatch.setattr(sysctl._Settings, "_open", without_ipv6)
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    runtime = PluginRunner("bridge", container, isDefaultGateway=True, ipMasq=True, ipam=ipam)
    runtime.add()
    runtime.check()
