"""ptp: what it makes, seen from outside, and the stories behind what goes wrong elsewhere."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from pycni.kernel.netns import sysctl
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for
from pycni.testing.snapshot import of_host

DEFAULTS = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
BACKENDS = pytest.mark.parametrize("backend", ["", "nftables", "iptables"])


def prepared(container: Container, last: int = 2, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """A runtime whose static addresses end in `last`, before its ADD."""
    addresses = [
        {"address": f"10.1.0.{last}/24", "gateway": "10.1.0.1"},
        {"address": f"fd00:1::{last}/64", "gateway": "fd00:1::1"},
    ]
    routes = DEFAULTS if ifname == "eth0" else []
    ipam = {"type": "static", "addresses": addresses, "routes": routes}
    return PluginRunner("ptp", container, ifname=ifname, **{"ipam": ipam, **config})


def attach(container: Container, last: int = 2, **config: Any) -> PluginRunner:
    runtime = prepared(container, last, **config)
    runtime.add()
    return runtime


def static(*addresses: dict[str, str], routes: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    return {"type": "static", "addresses": list(addresses), "routes": list(routes)}


def link(world: Host | Container, name: str) -> dict[str, Any]:
    (found,) = world.json(f"ip -j -d link show dev {name}")
    return dict(found)


def addresses(world: Host | Container, name: str) -> list[str]:
    (found,) = world.json(f"ip -j addr show dev {name}")
    return [f"{info['local']}/{info['prefixlen']}" for info in found["addr_info"] if info["scope"] == "global"]


def routes(world: Host | Container, name: str, family: int = 4) -> list[str]:
    lines = world.run(f"ip -{family} route show dev {name}").splitlines()
    return [" ".join(line.split()) for line in lines if not line.startswith("fe80::/64")]


def source_seen(sender: Container, receiver: Container, address: str) -> str:
    """The source address with which a datagram to `address` arrives at the receiver."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.netns.entered():
        inbox = socket.socket(family, socket.SOCK_DGRAM)
    with sender.netns.entered():
        outbox = socket.socket(family, socket.SOCK_DGRAM)
    with inbox, outbox:
        inbox.bind((address, 5000))
        inbox.settimeout(5)
        outbox.sendto(b"hello", (address, 5000))
        return str(inbox.recvfrom(16)[1][0])


def test_the_result_names_both_ends(host: Host, container: Container) -> None:
    runtime = attach(container, dns={"nameservers": ["10.1.0.53"]})
    port, eth = link(host, runtime.owner.host_ifname), link(container, "eth0")
    assert runtime.result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": port["ifname"], "mac": port["address"]},
            {"name": "eth0", "mac": eth["address"], "sandbox": container.path},
        ],
        "ips": [
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
            {"address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 1},
        ],
        "routes": DEFAULTS,
        "dns": {"nameservers": ["10.1.0.53"]},
    }
    runtime.check()


def test_both_ends_are_as_the_go_plugin_makes_them(host: Host, container: Container) -> None:
    port = attach(container).owner.host_ifname
    assert addresses(container, "eth0") == ["10.1.0.2/24", "fd00:1::2/64"]
    assert addresses(host, port) == ["10.1.0.1/32", "fd00:1::1/128"]
    assert routes(container, "eth0") == [
        "default via 10.1.0.1",
        "10.1.0.0/24 via 10.1.0.1 src 10.1.0.2",
        "10.1.0.1 scope link src 10.1.0.2",
    ]
    assert routes(container, "eth0", 6) == [
        "fd00:1::1 src fd00:1::2 metric 1024 pref medium",
        "fd00:1::/64 via fd00:1::1 src fd00:1::2 metric 1024 pref medium",
        "default via fd00:1::1 metric 1024 pref medium",
    ]
    assert routes(host, port) == ["10.1.0.2 scope host"]
    assert routes(host, port, 6) == [
        "fd00:1::1 proto kernel metric 256 pref medium",
        "fd00:1::2 metric 1024 pref medium",
    ]
    assert host.run("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding").split() == ["1", "1"]
    assert link(host, port).get("txqlen", 0) == 0


def test_a_container_reaches_the_host_and_its_neighbour_over_the_host(containers: list[Container]) -> None:
    first, second, _ = containers
    attach(first, 2)
    attach(second, 3)
    for address in ("10.1.0.1", "10.1.0.3", "fd00:1::1", "fd00:1::3"):
        assert first.pings(address), address
    assert first.host.run("ping -c1 -W1 10.1.0.3 && ping -c1 -W1 fd00:1::2")
    (route,) = first.json("ip -j route get 10.1.0.3")
    assert route["gateway"] == "10.1.0.1"


def test_without_a_route_from_ipam_nothing_leaves_the_subnet(container: Container, outside: Container) -> None:
    attach(container, ipam=static({"address": "10.1.0.2/24"}), ipMasq=True)
    assert container.pings("10.1.0.1")
    done = container.run("ping -c1 -W1 192.0.2.2 2>&1", check=False)
    assert "unreachable" in done
    assert not outside.pings("10.1.0.2")


@BACKENDS
def test_masquerading_hides_the_container_from_the_world_and_not_from_its_neighbours(
    containers: list[Container], outside: Container, backend: str
) -> None:
    masqueraded, plain, _ = containers
    attach(masqueraded, 2, ipMasq=True, ipMasqBackend=backend).check()
    attach(plain, 3)
    assert source_seen(masqueraded, outside, "192.0.2.2") == "192.0.2.1"
    assert source_seen(masqueraded, outside, "2001:db8::2") == "2001:db8::1"
    assert source_seen(plain, outside, "192.0.2.2") == "10.1.0.3"
    assert source_seen(masqueraded, plain, "10.1.0.3") == "10.1.0.2"
    assert source_seen(masqueraded, plain, "fd00:1::3") == "fd00:1::2"
    assert masqueraded.pings("192.0.2.2")
    assert not plain.pings("192.0.2.2")  # the world has no route to it


@BACKENDS
def test_after_del_nobody_is_masqueraded_any_more(
    containers: list[Container], outside: Container, backend: str
) -> None:
    runtime = attach(containers[0], 2, ipMasq=True, ipMasqBackend=backend)
    runtime.delete()
    attach(containers[1], 2)  # the address has come to another container
    assert source_seen(containers[1], outside, "192.0.2.2") == "10.1.0.2"


def test_mtu_is_that_of_both_ends(host: Host, container: Container) -> None:
    runtime = attach(container, mtu=1400)
    assert [link(host, runtime.owner.host_ifname)["mtu"], link(container, "eth0")["mtu"]] == [1400, 1400]


def test_cni_args_are_none_of_its_business(container: Container) -> None:
    runtime = prepared(container, ipam={"type": "host-local", "subnet": "10.1.0.0/24"})
    runtime.cni_args = "MAC=nonsense;IgnoreUnknown=1"
    runtime.add()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ipam": {}}, r"ipam\.type is missing"),
        ({"ipMasqBackend": "ebpf"}, 'ipMasqBackend: unknown ipmasq backend "ebpf"'),
        ({"mtu": "1500"}, 'mtu: .*integer, not "1500"'),
        ({"ipam": static({"address": "10.1.0.2/32"})}, "IPAM returned no gateway for 10.1.0.2/32"),
        ({"ipam": static({"address": "10.1.0.1/24"})}, "the gateway of 10.1.0.1/24 would be 10.1.0.1"),
    ],
)
def test_what_cannot_work_is_named_and_nothing_remains(
    host: Host, container: Container, config: dict[str, Any], message: str
) -> None:
    before = of_host(host)
    with pytest.raises(CniError, match=message) as caught:
        attach(container, **config)
    assert caught.value.code == 7
    assert of_host(host) == before
    assert "eth0" not in container.run("ip -br link")


def test_pt05_without_a_gateway_from_ipam_the_first_address_of_the_subnet_is_it(
    host: Host, container: Container
) -> None:
    runtime = attach(container, ipam=static({"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}, routes=DEFAULTS))
    assert [ip["gateway"] for ip in (runtime.result or {})["ips"]] == ["10.1.0.1", "fd00:1::1"]
    assert addresses(host, runtime.owner.host_ifname) == ["10.1.0.1/32", "fd00:1::1/128"]
    runtime.check()


def test_a_gateway_may_stand_outside_the_subnet(container: Container) -> None:
    runtime = attach(
        container,
        ipam=static(
            {"address": "10.1.0.2/32", "gateway": "169.254.1.1"},
            {"address": "fd00:1::2/128", "gateway": "fd00:99::1"},
            routes=DEFAULTS,
        ),
    )
    assert container.pings("169.254.1.1")
    assert container.pings("fd00:99::1")
    runtime.check()


def test_a_route_of_ipam_may_lead_by_another_address_of_the_host(host: Host, container: Container) -> None:
    host.run("ip addr add 10.1.0.9/32 dev lo && ip addr add fd00:1::9/128 dev lo")
    host.run("ip addr add 10.9.0.1/32 dev lo && ip addr add fd00:9::1/128 dev lo")
    led = [{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}, {"dst": "fd00:9::/64", "gw": "fd00:1::9"}]
    ipam = {"addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}], "routes": led}
    runtime = attach(container, ipam={"type": "static", **ipam})
    assert "10.9.0.0/16 via 10.1.0.9 onlink" in routes(container, "eth0")
    assert container.pings("10.9.0.1")
    assert "via fd00:1::9 dev eth0" in container.run("ip -6 route get fd00:9::1")
    runtime.check()


def test_r51_several_addresses_of_one_subnet_share_its_gateway(host: Host, container: Container) -> None:
    runtime = attach(
        container,
        ipam=static(
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
            {"address": "10.1.0.3/24", "gateway": "10.1.0.1"},
            {"address": "10.1.0.4/24", "gateway": "10.1.0.254"},
            {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
            {"address": "fd00:1::3/64", "gateway": "fd00:1::1"},
            routes=DEFAULTS,
        ),
        ipMasq=True,
    )
    assert addresses(host, runtime.owner.host_ifname) == ["10.1.0.1/32", "10.1.0.254/32", "fd00:1::1/128"]
    for address in ("10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00:1::2", "fd00:1::3"):
        assert host.run(f"ping -c1 -W1 {address}")
    assert container.pings("10.1.0.254")
    runtime.check()
    runtime.delete()


def test_r52_no_address_is_waited_for(host: Host, container: Container) -> None:
    port = attach(container).owner.host_ifname
    for world, name in ((host, port), (container, "eth0")):
        (found,) = world.json(f"ip -j addr show dev {name}")
        mine = [info for info in found["addr_info"] if info["family"] == "inet6" and info["scope"] == "global"]
        assert mine
        assert not any(info.get("tentative") for info in mine)
        assert world.run(f"cat /proc/sys/net/ipv6/conf/{name}/accept_dad").strip() == "0"


def test_r52_what_comes_from_outside_reaches_the_container_at_once(container: Container, outside: Container) -> None:
    outside.run("ip route add 10.1.0.0/24 via 192.0.2.1 && ip route add fd00:1::/64 via 2001:db8::1")
    attach(container)
    assert outside.pings("fd00:1::2")
    assert outside.pings("10.1.0.2")


def test_r53_the_host_hears_of_every_address(host: Host, container: Container) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as tap:
        tap.settimeout(0.05)
        attach(container)
        mac = bytes.fromhex(link(container, "eth0")["address"].replace(":", ""))
        heard: set[str] = set()
        wait_for(lambda: heard.add(announced(tap, mac)) or heard >= {"10.1.0.2", "fd00:1::2"}, "an ARP and an NA")


def announced(tap: socket.socket, mac: bytes) -> str:
    """The address that the holder of the MAC announces by the next frame, if it does so."""
    try:
        frame = tap.recv(2048)
    except TimeoutError:
        return ""
    if frame[6:12] == mac and frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]:
        return socket.inet_ntop(socket.AF_INET, frame[28:32])
    if frame[6:12] == mac and frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88":
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return ""


def test_no_end_listens_to_router_advertisements(host: Host, container: Container) -> None:
    port = attach(container).owner.host_ifname
    assert host.run(f"cat /proc/sys/net/ipv6/conf/{port}/accept_ra").strip() == "0"
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"


def test_ipv6_of_the_host_may_be_off_for_new_links(host: Host, container: Container) -> None:
    host.run("sysctl -q net.ipv6.conf.default.disable_ipv6=1")
    attach(container)
    assert container.pings("fd00:1::1")


def test_a_second_add_is_refused_before_ipam_is_asked(container: Container) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    runtime = attach(container, ipam=ipam)
    before = of_host(container.host)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        prepared(container, ipam=ipam).add()
    assert of_host(container.host) == before
    runtime.check()


def test_r06_addresses_are_given_back_if_the_host_cannot_forward(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sysctl._Settings.write

    def refusing(self: sysctl._Settings, setting: str, value: str) -> None:
        if "forward" in setting:
            raise CniError(f"cannot set sysctl net/{setting}")
        real(self, setting, value)

    monkeypatch.setattr(sysctl._Settings, "write", refusing)
    before = of_host(container.host)
    with pytest.raises(CniError, match="cannot set sysctl net/ipv4/ip_forward"):
        attach(container, ipam={"type": "host-local", "subnet": "10.1.0.0/24"})
    assert of_host(container.host) == before


@pytest.mark.parametrize("remembered", [True, False])
@BACKENDS
def test_r07_deleting_one_of_two_interfaces_leaves_the_others_nat(
    container: Container, outside: Container, backend: str, *, remembered: bool
) -> None:
    first = prepared(container, 2, ipMasq=True, ipMasqBackend=backend)
    second = prepared(container, 3, ifname="eth1", ipMasq=True, ipMasqBackend=backend)
    second.add()
    first.add()
    if not remembered:
        second.forget()
    second.delete()
    first.check()
    assert source_seen(container, outside, "192.0.2.2") == "192.0.2.1"
    first.delete()
    assert firewall(container.host) == []


def firewall(host: Host) -> list[str]:
    """What the firewall has of anybody, in any backend."""
    lines = [line.strip() for line in host.run("nft list ruleset").splitlines()]
    return [line for line in lines if "net: test" in line or "CNI-" in line]


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/hostname"])
@BACKENDS
def test_r09_the_hosts_state_goes_without_the_namespace(
    container: Container, netns: str, backend: str, *, remembered: bool
) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    before = of_host(container.host)
    runtime = attach(container, ipam=ipam, ipMasq=True, ipMasqBackend=backend)
    if not remembered:
        runtime.forget()
    runtime.netns = netns
    runtime.delete()
    assert firewall(container.host) == []
    left = of_host(container.host) - before
    assert [line for line in left if not line.startswith("nft")] == []
    runtime.delete()


@pytest.mark.parametrize(
    "damage", [{"ipam": {}}, {"ipMasqBackend": "gone"}, {"mtu": "many"}, {"prevResult": {"ips": 1}}]
)
def test_r05_a_configuration_that_has_become_wrong_does_not_block_delete(
    container: Container, damage: dict[str, Any]
) -> None:
    runtime = attach(container, ipMasq=True)
    runtime.config |= damage
    runtime.forget()
    runtime.delete()
    assert "eth0" not in container.run("ip -br link")
    assert firewall(container.host) == []


def test_a_cable_of_the_go_plugin_is_removed_by_its_inner_end(host: Host, container: Container) -> None:
    host.run(f"ip link add vethdeadbeef type veth peer name eth0 netns {container.path}")
    prepared(container).delete()
    assert "vethdeadbeef" not in host.run("ip -br link")


@BACKENDS
def test_r01_gc_removes_what_no_valid_attachment_owns(containers: list[Container], backend: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    alive, *dead = [attach(each, ipam=ipam, ipMasq=True, ipMasqBackend=backend) for each in containers]
    alive.gc(alive)
    alive.check()
    host = containers[0].host
    for runtime in dead:
        assert runtime.owner.host_ifname not in host.run("ip -br link")
        assert runtime.owner.key not in host.run("nft list ruleset")
        assert runtime.owner.container_name("CNI-", 28) not in host.run("nft list ruleset")
    assert len(list((host.state / "networks" / "test").glob("10.1.0.*"))) == 1


DAMAGE = [
    ("{c} ip addr del 10.1.0.2/24 dev eth0", r"eth0 has lost 10\.1\.0\.2/24"),
    ("{c} ip link set eth0 address 02:00:00:00:00:07", "eth0 should have mac"),
    ("{c} ip link set eth0 down", "eth0 "),
    ("{c} ip route del default", r"eth0 has lost the route to 0\.0\.0\.0/0 via 10\.1\.0\.1"),
    ("{c} ip -6 route del fd00:1::/64", "eth0 has lost the route to fd00:1::/64 via fd00:1::1"),
    ("ip link set {port} down", "{port} "),
    ("ip link set {port} address 02:00:00:00:00:08", "{port} should have mac"),
    ("ip addr del 10.1.0.1/32 dev {port}", r"{port} has lost 10\.1\.0\.1/32"),
    ("ip addr del fd00:1::1/128 dev {port}", "{port} has lost fd00:1::1/128"),
    ("ip route del 10.1.0.2 dev {port}", r"{port} has lost the route to 10\.1\.0\.2/32"),
    ("ip -6 route del fd00:1::2 dev {port}", "{port} has lost the route to fd00:1::2/128"),
    ("nft flush set inet pycni masquerade6-64", "masquerading of fd00:1::2 is missing"),
    ("nft delete table inet pycni", r"masquerading of 10\.1\.0\.2 is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_pt10_check_looks_at_both_ends(host: Host, container: Container, damage: str, message: str) -> None:
    runtime = attach(container, ipMasq=True)
    runtime.check()
    port = runtime.owner.host_ifname
    if damage.startswith("{c} "):
        container.run(damage.removeprefix("{c} "))
    else:
        host.run(damage.format(port=port))
    with pytest.raises(CniError, match=message.replace("{port}", port)):
        runtime.check()


def test_status_asks_ipam_and_the_backend(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:

    runtime = prepared(container, ipMasq=True, ipMasqBackend="iptables")
    runtime.status()
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="iptables is not available") as caught:
        runtime.status()
    assert caught.value.code == 50
    prepared(container, ipMasqBackend="iptables").status()


def test_the_hosts_own_namespace_is_refused_before_anything_is_done(container: Container) -> None:
    runtime = prepared(container)
    runtime.netns = f"/proc/{os.getpid()}/ns/net"
    before = of_host(container.host)
    with pytest.raises(CniError, match="should not be the same"):
        runtime.add()
    assert of_host(container.host) == before
