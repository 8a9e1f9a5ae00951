"""ptp: its effect on host and container, and regression tests (docs/reference/plugins.md#ptp)."""

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
by_backend = pytest.mark.parametrize("backend", ["", "nftables", "iptables"])


def ptp_runner(container: Container, last: int = 2, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """Return a runner whose static addresses end in `last`, before its ADD."""
    addresses = [
        {"address": f"10.1.0.{last}/24", "gateway": "10.1.0.1"},
        {"address": f"fd00:1::{last}/64", "gateway": "fd00:1::1"},
    ]
    routes = DEFAULTS if ifname == "eth0" else []
    ipam = {"type": "static", "addresses": addresses, "routes": routes}
    return PluginRunner("ptp", container, ifname=ifname, **{"ipam": ipam, **config})


def attach(container: Container, last: int = 2, **config: Any) -> PluginRunner:
    runner = ptp_runner(container, last, **config)
    runner.add()
    return runner


def static(*addresses: dict[str, str], routes: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    return {"type": "static", "addresses": list(addresses), "routes": list(routes)}


def link(netns: Host | Container, name: str) -> dict[str, Any]:
    (found,) = netns.json(f"ip -j -d link show dev {name}")
    return dict(found)


def addresses(netns: Host | Container, name: str) -> list[str]:
    (found,) = netns.json(f"ip -j addr show dev {name}")
    return [f"{info['local']}/{info['prefixlen']}" for info in found["addr_info"] if info["scope"] == "global"]


def routes(netns: Host | Container, name: str, family: int = 4) -> list[str]:
    lines = netns.run(f"ip -{family} route show dev {name}").splitlines()
    return [" ".join(line.split()) for line in lines if not line.startswith("fe80::/64")]


def source_seen(sender: Container, receiver: Container, address: str) -> str:
    """Send a datagram to `address`; return the source address that the receiver sees."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.netns.enter():
        server = socket.socket(family, socket.SOCK_DGRAM)
    with sender.netns.enter():
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.bind((address, 5000))
        server.settimeout(5)
        client.sendto(b"hello", (address, 5000))
        return str(server.recvfrom(16)[1][0])


def test_result_contains_both_ends_of_the_veth_pair(host: Host, container: Container) -> None:
    runner = attach(container, dns={"nameservers": ["10.1.0.53"]})
    port, eth = link(host, runner.owner.host_ifname), link(container, "eth0")
    assert runner.result == {
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
    runner.check()


def test_addresses_and_routes_are_those_of_the_go_plugin(host: Host, container: Container) -> None:
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


def test_container_reaches_the_host_and_other_containers_through_the_host(containers: list[Container]) -> None:
    first, second, _ = containers
    attach(first, 2)
    attach(second, 3)
    for address in ("10.1.0.1", "10.1.0.3", "fd00:1::1", "fd00:1::3"):
        assert first.pings(address), address
    assert first.host.run("ping -c1 -W1 10.1.0.3 && ping -c1 -W1 fd00:1::2")
    (route,) = first.json("ip -j route get 10.1.0.3")
    assert route["gateway"] == "10.1.0.1"


def test_no_default_route_is_added_without_a_route_from_ipam(container: Container, outside: Container) -> None:
    attach(container, ipam=static({"address": "10.1.0.2/24"}), ipMasq=True)
    assert container.pings("10.1.0.1")
    done = container.run("ping -c1 -W1 192.0.2.2 2>&1", check=False)
    assert "unreachable" in done
    assert not outside.pings("10.1.0.2")


@by_backend
def test_ip_masq_masquerades_traffic_to_other_networks_only(
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
    assert not plain.pings("192.0.2.2")  # the host outside has no route to it


@by_backend
def test_del_removes_the_masquerade_rules(containers: list[Container], outside: Container, backend: str) -> None:
    runner = attach(containers[0], 2, ipMasq=True, ipMasqBackend=backend)
    runner.delete()
    attach(containers[1], 2)  # another container gets the same address
    assert source_seen(containers[1], outside, "192.0.2.2") == "10.1.0.2"


def test_mtu_is_set_on_both_ends_of_the_veth_pair(host: Host, container: Container) -> None:
    runner = attach(container, mtu=1400)
    assert [link(host, runner.owner.host_ifname)["mtu"], link(container, "eth0")["mtu"]] == [1400, 1400]


def test_cni_args_are_ignored(container: Container) -> None:
    runner = ptp_runner(container, ipam={"type": "host-local", "subnet": "10.1.0.0/24"})
    runner.cni_args = "MAC=nonsense;IgnoreUnknown=1"
    runner.add()


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
def test_error_for_an_invalid_configuration_names_the_cause_and_nothing_is_left(
    host: Host, container: Container, config: dict[str, Any], message: str
) -> None:
    before = of_host(host)
    with pytest.raises(CniError, match=message) as caught:
        attach(container, **config)
    assert caught.value.code == 7
    assert of_host(host) == before
    assert "eth0" not in container.run("ip -br link")


def test_default_gateway_is_the_first_address_of_the_subnet(host: Host, container: Container) -> None:
    runner = attach(container, ipam=static({"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}, routes=DEFAULTS))
    assert [ip["gateway"] for ip in (runner.result or {})["ips"]] == ["10.1.0.1", "fd00:1::1"]
    assert addresses(host, runner.owner.host_ifname) == ["10.1.0.1/32", "fd00:1::1/128"]
    runner.check()


def test_gateway_can_be_outside_the_subnet(container: Container) -> None:
    runner = attach(
        container,
        ipam=static(
            {"address": "10.1.0.2/32", "gateway": "169.254.1.1"},
            {"address": "fd00:1::2/128", "gateway": "fd00:99::1"},
            routes=DEFAULTS,
        ),
    )
    assert container.pings("169.254.1.1")
    assert container.pings("fd00:99::1")
    runner.check()


def test_route_of_ipam_can_use_another_address_of_the_host_as_gateway(host: Host, container: Container) -> None:
    host.run("ip addr add 10.1.0.9/32 dev lo && ip addr add fd00:1::9/128 dev lo")
    host.run("ip addr add 10.9.0.1/32 dev lo && ip addr add fd00:9::1/128 dev lo")
    gateway_routes = [{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}, {"dst": "fd00:9::/64", "gw": "fd00:1::9"}]
    ipam = {"addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}], "routes": gateway_routes}
    runner = attach(container, ipam={"type": "static", **ipam})
    assert "10.9.0.0/16 via 10.1.0.9 onlink" in routes(container, "eth0")
    assert container.pings("10.9.0.1")
    assert "via fd00:1::9 dev eth0" in container.run("ip -6 route get fd00:9::1")
    runner.check()


def test_several_addresses_of_a_subnet_share_its_gateway(host: Host, container: Container) -> None:
    runner = attach(
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
    assert addresses(host, runner.owner.host_ifname) == ["10.1.0.1/32", "10.1.0.254/32", "fd00:1::1/128"]
    for address in ("10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00:1::2", "fd00:1::3"):
        assert host.run(f"ping -c1 -W1 {address}")
    assert container.pings("10.1.0.254")
    runner.check()
    runner.delete()


def test_ipv6_addresses_are_not_tentative_after_add(host: Host, container: Container) -> None:
    """containernetworking/plugins#680."""
    port = attach(container).owner.host_ifname
    for netns, name in ((host, port), (container, "eth0")):
        (found,) = netns.json(f"ip -j addr show dev {name}")
        ipv6_addresses = [
            info for info in found["addr_info"] if info["family"] == "inet6" and info["scope"] == "global"
        ]
        assert ipv6_addresses
        assert not any(info.get("tentative") for info in ipv6_addresses)
        assert netns.run(f"cat /proc/sys/net/ipv6/conf/{name}/accept_dad").strip() == "0"


def test_container_is_reachable_from_outside_immediately(container: Container, outside: Container) -> None:
    outside.run("ip route add 10.1.0.0/24 via 192.0.2.1 && ip route add fd00:1::/64 via 2001:db8::1")
    attach(container)
    assert outside.pings("fd00:1::2")
    assert outside.pings("10.1.0.2")


def test_every_address_is_announced_to_the_host(host: Host, container: Container) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as sniffer:
        sniffer.settimeout(0.05)
        attach(container)
        mac = bytes.fromhex(link(container, "eth0")["address"].replace(":", ""))
        received: set[str] = set()
        wait_for(
            lambda: received.add(announced_address(sniffer, mac)) or received >= {"10.1.0.2", "fd00:1::2"},
            "a gratuitous ARP and a neighbour advertisement",
        )


def announced_address(sniffer: socket.socket, mac: bytes) -> str:
    """Return the address that the holder of the MAC announces in the next frame, or ""."""
    try:
        frame = sniffer.recv(2048)
    except TimeoutError:
        return ""
    if frame[6:12] == mac and frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]:
        return socket.inet_ntop(socket.AF_INET, frame[28:32])
    if frame[6:12] == mac and frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88":
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return ""


def test_router_advertisements_are_ignored_on_both_ends(host: Host, container: Container) -> None:
    port = attach(container).owner.host_ifname
    assert host.run(f"cat /proc/sys/net/ipv6/conf/{port}/accept_ra").strip() == "0"
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"


def test_ipv6_works_if_it_is_disabled_for_new_links_of_the_host(host: Host, container: Container) -> None:
    host.run("sysctl -q net.ipv6.conf.default.disable_ipv6=1")
    attach(container)
    assert container.pings("fd00:1::1")


def test_second_add_is_refused_before_ipam_is_called(container: Container) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    runner = attach(container, ipam=ipam)
    before = of_host(container.host)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        ptp_runner(container, ipam=ipam).add()
    assert of_host(container.host) == before
    runner.check()


def test_addresses_are_released_if_forwarding_cannot_be_enabled(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_setting = sysctl._Settings.write

    def write_or_fail(self: sysctl._Settings, setting: str, value: str) -> None:
        if "forward" in setting:
            raise CniError(f"cannot set sysctl net/{setting}")
        write_setting(self, setting, value)

    monkeypatch.setattr(sysctl._Settings, "write", write_or_fail)
    before = of_host(container.host)
    with pytest.raises(CniError, match="cannot set sysctl net/ipv4/ip_forward"):
        attach(container, ipam={"type": "host-local", "subnet": "10.1.0.0/24"})
    assert of_host(container.host) == before


@pytest.mark.parametrize("with_prev_result", [True, False])
@by_backend
def test_del_of_one_interface_keeps_the_masquerade_rules_of_the_other(
    container: Container, outside: Container, backend: str, *, with_prev_result: bool
) -> None:
    first = ptp_runner(container, 2, ipMasq=True, ipMasqBackend=backend)
    second = ptp_runner(container, 3, ifname="eth1", ipMasq=True, ipMasqBackend=backend)
    second.add()
    first.add()
    if not with_prev_result:
        second.forget()
    second.delete()
    first.check()
    assert source_seen(container, outside, "192.0.2.2") == "192.0.2.1"
    first.delete()
    assert firewall_rules(container.host) == []


def firewall_rules(host: Host) -> list[str]:
    """Return the rules and elements of attachments in all backends."""
    lines = [line.strip() for line in host.run("nft list ruleset").splitlines()]
    return [line for line in lines if "net: test" in line or "CNI-" in line]


@pytest.mark.parametrize("with_prev_result", [True, False])
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/hostname"])
@by_backend
def test_del_without_a_namespace_removes_the_state_of_the_host(
    container: Container, netns: str, backend: str, *, with_prev_result: bool
) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    before = of_host(container.host)
    runner = attach(container, ipam=ipam, ipMasq=True, ipMasqBackend=backend)
    if not with_prev_result:
        runner.forget()
    runner.netns = netns
    runner.delete()
    assert firewall_rules(container.host) == []
    left = of_host(container.host) - before
    assert [line for line in left if not line.startswith("nft")] == []
    runner.delete()


@pytest.mark.parametrize(
    "change", [{"ipam": {}}, {"ipMasqBackend": "gone"}, {"mtu": "many"}, {"prevResult": {"ips": 1}}]
)
def test_del_succeeds_with_an_invalid_configuration(container: Container, change: dict[str, Any]) -> None:
    runner = attach(container, ipMasq=True)
    runner.config |= change
    runner.forget()
    runner.delete()
    assert "eth0" not in container.run("ip -br link")
    assert firewall_rules(container.host) == []


def test_del_deletes_the_veth_pair_of_the_go_plugin(host: Host, container: Container) -> None:
    host.run(f"ip link add vethdeadbeef type veth peer name eth0 netns {container.path}")
    ptp_runner(container).delete()
    assert "vethdeadbeef" not in host.run("ip -br link")


@by_backend
def test_gc_removes_links_and_rules_without_a_valid_attachment(containers: list[Container], backend: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    alive, *dead = [attach(each, ipam=ipam, ipMasq=True, ipMasqBackend=backend) for each in containers]
    alive.gc(alive)
    alive.check()
    host = containers[0].host
    for runner in dead:
        assert runner.owner.host_ifname not in host.run("ip -br link")
        assert runner.owner.key not in host.run("nft list ruleset")
        assert runner.owner.container_name("CNI-", 28) not in host.run("nft list ruleset")
    assert len(list((host.state / "networks" / "test").glob("10.1.0.*"))) == 1


CHANGES = [
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


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_check_reports_changes_on_both_ends(host: Host, container: Container, change: str, message: str) -> None:
    runner = attach(container, ipMasq=True)
    runner.check()
    port = runner.owner.host_ifname
    if change.startswith("{c} "):
        container.run(change.removeprefix("{c} "))
    else:
        host.run(change.format(port=port))
    with pytest.raises(CniError, match=message.replace("{port}", port)):
        runner.check()


def test_status_checks_ipam_and_the_backend(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:

    runner = ptp_runner(container, ipMasq=True, ipMasqBackend="iptables")
    runner.status()
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CniError, match="iptables is not available") as caught:
        runner.status()
    assert caught.value.code == 50
    ptp_runner(container, ipMasqBackend="iptables").status()


def test_own_namespace_of_the_host_is_refused_before_anything_changes(container: Container) -> None:
    runner = ptp_runner(container)
    runner.netns = f"/proc/{os.getpid()}/ns/net"
    before = of_host(container.host)
    with pytest.raises(CniError, match="should not be the same"):
        runner.add()
    assert of_host(container.host) == before
