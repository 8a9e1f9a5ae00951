"""host-device: a link of the host goes into the container, and comes home as it was."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pycni.kernel.link import devices
from pycni.protocol.errors import CniError
from pycni.testing import (
    Container,
    Host,
    PluginRunner,
    check_lifecycle,
    fail_at_every_change,
    kill_at_every_change,
    wait_for,
)
from pycni.testing.snapshot import of_host, of_namespace

MAC = "02:aa:bb:cc:dd:01"
ADDRESSES = [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}]
STATIC = {"type": "static", "addresses": ADDRESSES, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}, {"dst": "fd00:9::/64", "gw": "fd00:1::1"}],
}


@pytest.fixture
def wire(host: Host) -> str:
    """hd0, up, with addresses, at a wire whose other end hd1 is 10.1.0.1 and fd00:1::1."""
    host.run(f"ip link add hd0 mtu 1400 address {MAC} type veth peer name hd1 mtu 1400")
    host.run("sysctl -q net.ipv6.conf.hd0.accept_dad=0 net.ipv6.conf.hd1.accept_dad=0")
    host.run("ip addr add 192.0.2.7/28 dev hd0 && ip addr add 2001:db8::7/64 dev hd0 nodad && ip link set hd0 up")
    host.run("ip addr add 10.1.0.1/24 dev hd1 && ip addr add fd00:1::1/64 dev hd1 nodad && ip link set hd1 up")
    return "hd0"


def device(container: Container, *, by: type[PluginRunner] = PluginRunner, **config: Any) -> PluginRunner:
    """A runtime for host-device; it remembers devices in a directory of the test."""
    options = {"device": "hd0", "dataDir": str(container.host.state / "devices"), **config}
    return by("host-device", container, **{key: value for key, value in options.items() if value is not None})


def link(world: Container | Host, name: str) -> dict[str, Any]:
    (found,) = world.json(f"ip -j -d addr show dev {name}")
    return dict(found)


def names(world: Container | Host) -> set[str]:
    return {found["ifname"] for found in world.json("ip -j link")}


def addresses(found: dict[str, Any]) -> set[str]:
    return {f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["scope"] == "global"}


def is_as_before(host: Host) -> None:
    """hd0 is at home as `wire` has made it."""
    found = link(host, "hd0")
    assert (found["address"], found["mtu"], found.get("ifalias", "")) == (MAC, 1400, "")
    assert addresses(found) == {"192.0.2.7/28", "2001:db8::7/64"}
    assert {"UP", "PROMISC", "ALLMULTI"}.intersection(found["flags"]) == {"UP"}
    assert found["txqlen"] == 1000
    assert not list(host.state.glob("devices/*"))


def failing_ipam(host: Host) -> dict[str, str]:
    binary = host.state / "bin" / "empty"
    binary.parent.mkdir(parents=True, exist_ok=True)
    answer = json.dumps({"cniVersion": "1.1.0", "code": 50, "msg": "the pool is dry"})
    binary.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\necho '{answer}'\nexit 1\n")
    binary.chmod(0o755)
    return {"type": "empty"}


@pytest.mark.usefixtures("wire")
def test_the_device_is_the_containers_and_comes_home_as_it_was(host: Host, container: Container) -> None:
    runtime = device(container, ipam=STATIC)
    result = runtime.add()
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": container.path}]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.2/24", 0), ("fd00:1::2/64", 0)]
    assert "hd0" not in names(host)
    found = link(container, "eth0")
    assert (found["ifalias"], found["mtu"]) == ("hd0", 1400)
    assert addresses(found) == {"10.1.0.2/24", "fd00:1::2/64"}
    assert container.pings("10.1.0.1")
    assert container.pings("fd00:1::1")
    runtime.check()
    runtime.delete()
    assert names(container) == {"lo"}
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_without_ipam_it_is_up_and_has_no_addresses(host: Host, container: Container) -> None:
    runtime = device(container)
    assert runtime.add() == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": container.path}],
    }
    found = link(container, "eth0")
    assert "UP" in found["flags"]
    assert addresses(found) == set()
    runtime.check()
    runtime.delete()
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_one_that_was_down_and_had_an_alias_is_so_again(host: Host, container: Container) -> None:
    host.run("ip link set hd0 down && ip link set hd0 alias uplink && ip addr flush dev hd0")
    before = of_host(host)
    runtime = device(container)
    runtime.add()
    runtime.check()
    runtime.delete()
    assert of_host(host) == before


@pytest.mark.usefixtures("wire")
def test_one_that_hears_everything_does_so_again(host: Host, container: Container) -> None:
    host.run("ip link set hd0 promisc on allmulticast on txqueuelen 77")
    runtime = device(container)
    runtime.add()
    container.run("ip link set eth0 promisc off allmulticast off txqueuelen 1000")
    runtime.delete()
    found = link(host, "hd0")
    assert {"PROMISC", "ALLMULTI"} <= set(found["flags"])
    assert found["txqlen"] == 77


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize(
    ("selector", "value"),
    [("device", "hd0"), ("hwaddr", MAC), ("hwaddr", MAC.upper()), ("hwaddr", "02aa.bbcc.dd01")],
)
def test_selectors_of_links(host: Host, container: Container, selector: str, value: str) -> None:
    runtime = device(container, **{"device": None, selector: value})
    runtime.add()
    runtime.check()
    assert "hd0" not in names(host)
    runtime.delete()
    is_as_before(host)


@pytest.fixture
def sysfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory that stands in for /sys, with three devices that have no interface yet; the guest has real ones."""
    tree = tmp_path / "sys"
    monkeypatch.setattr(devices, "SYS", tree)
    for place in ("pci0000:00/0000:00:03.0/virtio0", "pci0000:00/0000:00:04.0", "virtual/mlx5_core.sf.2"):
        (tree / "devices" / place).mkdir(parents=True)
    for bus in ("pci", "auxiliary"):
        (tree / "bus" / bus / "devices").mkdir(parents=True)
        (tree / "bus" / bus / "drivers").mkdir()
    for address in ("0000:00:03.0", "0000:00:04.0"):
        (tree / "bus/pci/devices" / address).symlink_to(tree / "devices/pci0000:00" / address)
    (tree / "bus/auxiliary/devices/mlx5_core.sf.2").symlink_to(tree / "devices/virtual/mlx5_core.sf.2")
    return tree


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize(
    ("place", "config"),
    [
        ("pci0000:00/0000:00:04.0", {"pciBusID": "0000:00:04.0"}),
        ("pci0000:00/0000:00:03.0/virtio0", {"pciBusID": "0000:00:03.0"}),
        ("pci0000:00/0000:00:04.0", {"kernelpath": "/sys/devices/pci0000:00/0000:00:04.0"}),
        ("pci0000:00/0000:00:04.0", {"runtimeConfig": {"deviceID": "0000:00:04.0"}}),
        ("pci0000:00/0000:00:04.0", {"runtimeConfig": {"deviceID": "0000:00:04.0"}, "pciBusID": "0000:00:03.0"}),
        ("virtual/mlx5_core.sf.2", {"runtimeConfig": {"deviceID": "mlx5_core.sf.2"}}),
        ("virtual/mlx5_core.sf.2", {"runtimeConfig": {"deviceID": "mlx5_core.sf.2"}, "pciBusID": "0000:00:03.0"}),
    ],
)
def test_selectors_of_devices(
    host: Host, container: Container, sysfs: Path, place: str, config: dict[str, Any]
) -> None:
    (sysfs / "devices" / place / "net" / "hd0").mkdir(parents=True)
    runtime = device(container, device=None, **config)
    runtime.status()
    runtime.add()
    runtime.check()
    assert "hd0" not in names(host)
    runtime.delete()
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_the_first_selector_counts(host: Host, container: Container, sysfs: Path) -> None:
    host.run("ip link add other type veth peer name others")
    (sysfs / "devices/pci0000:00/0000:00:04.0/net/other").mkdir(parents=True)
    (sysfs / "devices/virtual/mlx5_core.sf.2/net/others").mkdir(parents=True)
    everything = {
        "hwaddr": link(host, "other")["address"],
        "kernelpath": "/sys/devices/pci0000:00/0000:00:04.0",
        "pciBusID": "0000:00:04.0",
        "runtimeConfig": {"deviceID": "mlx5_core.sf.2"},
    }
    for left_out, expected in (
        ((), "hd0"),
        (("device",), "other"),
        (("device", "hwaddr"), "other"),
        (("device", "hwaddr", "kernelpath"), "others"),
    ):
        runtime = device(container, **{**everything, **dict.fromkeys(left_out)})
        runtime.add()
        assert link(container, "eth0")["ifalias"] == expected
        runtime.delete()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'),
        ({"device": "nope"}, 'failed to find host device: device "nope": link not found'),
        ({"hwaddr": "02:00:00:00:00:77"}, 'failed to find host device: hwaddr "02:00:00:00:00:77": link not found'),
        ({"hwaddr": "bogus"}, 'hwaddr: failed to parse MAC address "bogus"'),
        ({"kernelpath": "/tmp/x"}, 'kernel device path "/tmp/x" must be absolute and begin with /sys/devices/'),
        ({"kernelpath": "/sys/devices/../x"}, "must be absolute and begin with /sys/devices/"),
        ({"kernelpath": "/sys/devices/none"}, "failed to find host device: .*there is no /.*/devices/none"),
        ({"pciBusID": "0000:ff:00.0"}, "failed to find host device: .*there is no .*/bus/pci/devices/0000:ff:00.0"),
        ({"pciBusID": "0000:00:04.0"}, 'failed to find host device: pciBusID "0000:00:04.0": link not found'),
        ({"pciBusID": "../x"}, r'pciBusID: "\.\./x" is no place on a bus'),
        (
            {"runtimeConfig": {"deviceID": "0000:ff:00.0"}},
            "runtime config DeviceID 0000:ff:00.0 not found or unsupported",
        ),
        ({"device": "lo"}, "cannot move lo into .* as eth0: "),
        ({"device": "x" * 16}, "device: "),
    ],
)
def test_what_cannot_be_had_is_named_and_del_works(
    host: Host, container: Container, sysfs: Path, config: dict[str, Any], message: str
) -> None:
    runtime = device(container, **{"device": None, **config})
    before = of_host(host)
    with pytest.raises(CniError, match=message):
        runtime.add()
    runtime.delete()
    assert of_host(host) == before


@pytest.mark.usefixtures("wire")
def test_one_that_is_in_use_says_by_whom(containers: list[Container]) -> None:
    device(containers[0]).add()
    for config in ({}, {"device": None, "hwaddr": MAC}):
        with pytest.raises(CniError, match=f"eth0 of container {containers[0].id} is this device"):
            device(containers[1], **config).add()


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic", "igb_uio"])
def test_what_dpdk_drives_stays_and_ipam_runs(host: Host, container: Container, sysfs: Path, driver: str) -> None:
    (sysfs / "bus/pci/drivers" / driver).mkdir()
    (sysfs / "devices/pci0000:00/0000:00:04.0/driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
    runtime = device(container, device=None, pciBusID="0000:00:04.0", ipam=DUAL)
    runtime.status()
    result = runtime.add()
    assert result["interfaces"] == [{"name": "eth0", "sandbox": container.path}]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.2/24", 0), ("fd00:1::2/64", 0)]
    assert names(container) == {"lo"}
    runtime.check()
    runtime.delete()
    assert not list(host.state.glob("networks/test/10*"))
    without_addresses = device(container, device=None, pciBusID="0000:00:04.0").add()
    assert without_addresses == {"cniVersion": "1.1.0", "interfaces": result["interfaces"]}


@pytest.mark.usefixtures("wire")
def test_dpdk_may_also_be_said(host: Host, container: Container) -> None:
    runtime = device(container, DPDKMode=True)
    runtime.add()
    runtime.check()
    assert "hd0" in names(host)
    runtime.delete()
    is_as_before(host)


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("ipam", [{}, DUAL])
def test_it_leaves_nothing_behind(container: Container, ipam: dict[str, Any]) -> None:
    check_lifecycle(device(container, ipam=ipam))


@pytest.mark.usefixtures("wire")
def test_a_container_may_have_an_id_that_is_too_long_for_a_file(container: Container) -> None:
    container.id = "c" * 250
    check_lifecycle(device(container, ipam=DUAL))


@pytest.mark.usefixtures("wire")
def test_a_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("wire")
@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up(container: Container) -> None:
    """By DEL, and by GC, which finds the namespace in what was remembered."""
    assert kill_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("wire")
def test_r18_when_ipam_fails_the_device_is_at_home_as_it_was(host: Host, container: Container) -> None:
    with pytest.raises(CniError, match="the pool is dry"):
        device(container, ipam=failing_ipam(host)).add()
    assert names(container) == {"lo"}
    is_as_before(host)
    device(container).add()


@pytest.mark.usefixtures("wire")
def test_r11_a_second_del_works(host: Host, container: Container) -> None:
    runtime = device(container, ipam=DUAL)
    runtime.add()
    for _ in range(3):
        runtime.delete()
        is_as_before(host)
        runtime.forget()


ROUTES = (
    "-4 203.0.113.0/24 via 192.0.2.1 dev hd0 metric 7 mtu 1300",
    "-4 198.51.100.0/25 dev hd0 src 192.0.2.7",
    "-4 198.51.100.128/25 via 10.99.0.1 dev hd0 onlink table 300",
    "-6 default via 2001:db8::1 dev hd0 metric 5 proto static",
    "-6 2001:db8:9::/64 via fe80::1 dev hd0",
)


def ways(host: Host) -> set[str]:
    """The routes over hd0 that somebody has made."""
    listed = [
        {"family": family, **route}
        for family in ("-4", "-6")
        for route in host.json(f"ip -j {family} route show table all dev hd0")
        if route.get("protocol") != "kernel"
    ]
    return {json.dumps(route | {"flags": sorted({*route["flags"]} - {"linkdown"})}, sort_keys=True) for route in listed}


@pytest.fixture
def routed(host: Host, wire: str) -> set[str]:
    """Routes over hd0."""
    host.run(" && ".join(f"ip {route[:2]} route add {route[3:]}" for route in ROUTES))
    assert len(ways(host)) == len(ROUTES)
    return ways(host)


@pytest.mark.parametrize("far", ["up", "down"])
def test_its_routes_come_home_too(host: Host, container: Container, routed: set[str], far: str) -> None:
    """Also where the wire is dead when it comes."""
    runtime = device(container)
    runtime.add()
    host.run(f"ip link set hd1 {far}")
    runtime.delete()
    assert ways(host) == routed


@pytest.mark.usefixtures("wire")
def test_many_routes_come_home(host: Host, container: Container) -> None:
    """More than a socket takes at once; the kernel would have no room for its answers."""
    script = "for i in $(seq 0 9); do seq -f route\\ add\\ 10.9$i.%g.0/24\\ dev\\ hd0 0 255; done"
    host.run(f"{script} | ip -batch -")
    before, runtime = ways(host), device(container)
    assert len(before) == 2560
    runtime.add()
    runtime.delete()
    assert ways(host) == before


def test_what_the_kernel_has_sent_home_has_its_routes_again(host: Host, container: Container, routed: set[str]) -> None:
    runtime = device(container)
    runtime.add()
    container.run(f"ip link set eth0 netns {host.path} name dev3")
    runtime.gc()
    assert ways(host) == routed


def test_a_failed_add_leaves_the_routes(host: Host, container: Container, routed: set[str]) -> None:
    with pytest.raises(CniError, match="the pool is dry"):
        device(container, ipam=failing_ipam(host)).add()
    assert ways(host) == routed


@pytest.mark.usefixtures("wire")
@pytest.mark.direct
def test_routes_that_others_have_made_meanwhile_stay(
    host: Host, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    host.run("ip route add 203.0.113.0/24 via 192.0.2.1")
    runtime = device(container)
    runtime.add()
    host.run("ip route add 203.0.113.0/24 via 10.1.0.9")
    runtime.delete()
    assert "203.0.113.0/24 via 10.1.0.9 dev hd1" in host.run("ip route")
    assert not ways(host)
    assert "was moved back, but" not in caplog.text


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("what", ["via inet6 fe80::1", "tos 8", "proto dhcp", "proto 186"])
def test_routes_that_cannot_be_told_whole_or_come_again_are_left_out(
    host: Host, container: Container, what: str
) -> None:
    """Without its other half, a route would lead elsewhere; 186 is BGP."""
    host.run(f"ip route add 203.0.113.0/24 {what} dev hd0")
    assert ways(host)
    runtime = device(container)
    runtime.add()
    runtime.delete()
    assert not ways(host)


def port_of(host: Host) -> dict[str, Any]:
    """Where hd0 is a port, and of which kind."""
    found = link(host, "hd0")
    told = ("hairpin", "isolated", "learning", "flood", "fastleave", "guard", "priority")
    data = found.get("linkinfo", {}).get("info_slave_data", {})
    return {"master": found.get("master"), **{name: data.get(name) for name in told}}


@pytest.fixture
def bridged(host: Host, wire: str) -> dict[str, Any]:
    """hd0 is a port of br0, with settings of its own."""
    host.run(f"ip addr flush dev {wire} && ip link add br0 type bridge && ip link set br0 up")
    host.run("ip link set hd0 master br0 && bridge link set dev hd0 isolated on learning off hairpin on priority 3")
    assert port_of(host).items() >= {"master": "br0", "isolated": True, "learning": False, "hairpin": True}.items()
    return port_of(host)


def test_a_port_of_a_bridge_is_that_port_again(host: Host, container: Container, bridged: dict[str, Any]) -> None:
    before, runtime = of_host(host), device(container, ipam=DUAL)
    runtime.add()
    runtime.check()
    runtime.delete()
    assert of_host(host) == before
    assert port_of(host) == bridged


@pytest.mark.usefixtures("bridged")
@pytest.mark.exhaustive
def test_a_failed_add_leaves_the_port_and_nothing_else_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("bridged")
@pytest.mark.direct
def test_it_comes_home_although_its_bridge_is_gone(
    host: Host, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = device(container)
    runtime.add()
    host.run("ip link del br0")
    runtime.delete()
    assert link(host, "hd0").keys().isdisjoint({"master", "ifalias"})
    assert "hd0 was moved back, but its master br0 is gone" in caplog.text


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_a_port_of_a_bridge_is_in_its_vlans_again(host: Host, container: Container, bridged: dict[str, Any]) -> None:
    """And in no others: a port that joins a bridge is in VLAN 1."""
    host.run("ip link set br0 type bridge vlan_filtering 1 && bridge vlan del dev hd0 vid 1")
    host.run("bridge vlan add dev hd0 vid 10 pvid untagged && bridge vlan add dev hd0 vid 20-22")
    before = host.json("bridge -j vlan show dev hd0")
    runtime = device(container)
    runtime.add()
    runtime.delete()
    assert host.json("bridge -j vlan show dev hd0") == before
    assert port_of(host) == bridged


@pytest.mark.needs_kernel("vrf")
def test_a_member_of_a_vrf_is_one_again_with_its_routes(host: Host, container: Container, wire: str) -> None:
    host.run(f"ip link add red type vrf table 500 && ip link set red up && ip link set {wire} master red")
    host.run("ip addr add 2001:db8::7/64 dev hd0 nodad")  # those of IPv6 are gone by then
    host.run("ip route add 203.0.113.0/24 via 192.0.2.1 table 500 && ip -6 route add default via 2001:db8::1 table 500")
    before, runtime = of_host(host), device(container)
    runtime.add()
    runtime.delete()
    assert of_host(host) == before
    is_as_before(host)


@pytest.mark.needs_kernel("bond")
def test_a_member_of_a_bond_is_one_again_with_its_own_address(host: Host, container: Container, wire: str) -> None:
    host.run(f"ip addr flush dev {wire} && ip link add lag type bond && ip link add spare type veth peer name spares")
    host.run("ip link set spare master lag && ip link set hd0 down && ip link set hd0 master lag && ip link set lag up")
    assert link(host, "hd0")["address"] == link(host, "spare")["address"] != MAC
    before, runtime = of_host(host), device(container)
    runtime.add()
    runtime.delete()
    assert of_host(host) == before
    host.run("ip link set hd0 nomaster")
    assert link(host, "hd0")["address"] == MAC


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_r11_without_its_path_the_namespace_is_found_and_the_addresses_are_given_back(
    host: Host, container: Container, netns: str
) -> None:
    runtime = device(container, ipam=DUAL)
    runtime.add()
    runtime.netns = netns
    runtime.delete()
    assert not list(host.state.glob("networks/test/10*"))
    assert names(container) == {"lo"}
    is_as_before(host)


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_r11_a_virtual_device_goes_with_the_namespace_and_the_addresses_are_given_back(
    host: Host, container: Container, netns: str
) -> None:
    runtime = device(container, ipam=DUAL)
    runtime.add()
    runtime.netns = netns
    container.close()
    wait_for(lambda: "hd1" not in names(host), "the end of the namespace")
    runtime.delete()
    assert not list(host.state.glob("networks/test/10*"))
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("name", ["eth0", "dev3", "hd0"])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_r11_what_the_kernel_has_sent_home_is_as_it_was(host: Host, container: Container, name: str, verb: str) -> None:
    """It comes down, without addresses, and under the container's name or another; the guest shows how."""
    runtime = device(container)
    runtime.add()
    container.run(f"ip link set eth0 netns {host.path} name {name}")
    assert addresses(link(host, name)) == set()
    runtime.netns = ""
    if verb == "DEL":
        runtime.delete()
    else:
        runtime.gc()
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_what_somebody_has_brought_home_is_left_as_it_is(host: Host, container: Container) -> None:
    runtime = device(container)
    runtime.add()
    container.run(f"ip link set eth0 alias '' netns {host.path} name hd0")
    host.run("ip addr add 198.51.100.1/24 dev hd0")
    runtime.delete()
    assert addresses(link(host, "hd0")) == {"198.51.100.1/24"}
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize(
    "change",
    [
        "ip link set eth0 down && ip link set eth0 name lan7",
        "ip link set eth0 alias mine",
        "ip link set eth0 address 02:00:00:00:00:77 mtu 1280 down",
        "ip link set eth0 promisc on allmulticast on txqueuelen 77",
        "ip link add hd0 type veth peer name hd2",
        "ip link add hd0 type veth peer name hd2 && ip link set eth0 alias ''",
    ],
)
def test_whatever_the_container_does_with_it_it_comes_home(host: Host, container: Container, change: str) -> None:
    """Also past another link of the container that has its name."""
    runtime = device(container, ipam=DUAL)
    runtime.add()
    container.run(change)
    before = names(container) - {"eth0", "lan7"}
    runtime.delete()
    assert names(container) == before
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_it_comes_home_although_its_name_is_taken(host: Host, container: Container) -> None:
    runtime = device(container)
    runtime.add()
    host.run("ip link add hd0 type veth peer name hd2")
    runtime.delete()
    assert names(container) == {"lo"}
    (home,) = [name for name in names(host) if name.startswith("dev")]
    assert addresses(link(host, home)) == {"192.0.2.7/28", "2001:db8::7/64"}
    runtime.delete()


@pytest.mark.usefixtures("wire")
def test_gc_brings_home_what_no_valid_attachment_has(host: Host, containers: list[Container]) -> None:
    gone, alive = device(containers[0], ipam=DUAL), device(containers[1], device="other", ipam=DUAL)
    host.run("ip link add other type veth peer name others")
    for runtime in (gone, alive):
        runtime.add()
    gone.gc(gone, alive)
    gone.check()
    gone.gc(alive)
    alive.check()
    assert addresses(link(host, "hd0")) == {"192.0.2.7/28", "2001:db8::7/64"}
    assert len(list(host.state.glob("devices/*"))) == 1
    assert [path.name for path in host.state.glob("networks/test/10.*")] == ["10.1.0.3"]


@pytest.mark.usefixtures("wire")
def test_gc_leaves_the_devices_of_other_networks(container: Container) -> None:
    runtime = device(container)
    runtime.add()
    device(container, name="other").gc()
    runtime.check()


@pytest.mark.usefixtures("wire")
def test_del_leaves_what_another_attachment_has(host: Host, container: Container) -> None:
    """The path of a namespace may lead to another container by the time of the DEL."""
    theirs = device(container)
    theirs.result = theirs.add()
    ours = device(container)
    ours.container = Container(host)
    ours.netns = theirs.netns
    ours.result = theirs.result
    ours.delete()
    theirs.check()
    ours.container.close()


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("alias", ["", "uplink"])
def test_an_interface_of_that_name_is_left_alone(host: Host, container: Container, alias: str) -> None:
    container.run(f"ip link add eth0 type veth peer name other && ip link set eth0 alias '{alias}'")
    runtime = device(container)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        runtime.add()
    runtime.delete()
    assert {"eth0", "other"} <= names(container)
    is_as_before(host)


@pytest.mark.usefixtures("wire")
def test_r33_the_dns_of_ipam_is_in_the_result(container: Container) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}], "dns": {"nameservers": ["10.1.0.53"]}}
    runtime = device(container, ipam=ipam)
    assert runtime.add()["dns"] == {"nameservers": ["10.1.0.53"]}
    runtime.delete()
    runtime = device(container, ipam=ipam, dns={"nameservers": ["10.1.0.54"]})
    assert runtime.add()["dns"] == {"nameservers": ["10.1.0.54"]}


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("ip link set eth0 down", "eth0 should have up True"),
        ("ip link set eth0 alias mine", "eth0 should have alias hd0, but has mine"),
        ("ip link set eth0 address 02:00:00:00:00:77", f"eth0 should have mac {MAC}"),
        ("ip addr del 10.1.0.2/24 dev eth0", "eth0 has lost 10.1.0.2/24"),
        ("ip addr del fd00:1::2/64 dev eth0", "eth0 has lost fd00:1::2/64"),
        ("ip route del 10.9.0.0/16", "eth0 has lost the route to 10.9.0.0/16"),
        ("ip link del eth0", 'link "eth0" not found'),
    ],
)
def test_check_finds_what_is_wrong(container: Container, damage: str, message: str) -> None:
    runtime = device(container, ipam=DUAL)
    runtime.add()
    runtime.check()
    container.run(damage)
    with pytest.raises(CniError, match=message):
        runtime.check()


@pytest.mark.usefixtures("wire")
def test_check_asks_ipam(host: Host, container: Container) -> None:
    runtime = device(container, ipam=DUAL)
    runtime.add()
    (host.state / "networks" / "test" / "10.1.0.2").unlink()
    with pytest.raises(CniError):
        runtime.check()


@pytest.mark.usefixtures("wire")
def test_status_asks_for_the_device_and_ipam(host: Host, container: Container) -> None:
    device(container, ipam=STATIC).status()
    device(container, device=None).status()  # the runtime may name one
    for config in ({"device": "nope"}, {"ipam": failing_ipam(host)}, {"pciBusID": "0000:ff:00.0"}):
        with pytest.raises(CniError) as caught:
            device(container, **{"device": None, **config}).status()
        assert caught.value.code == 50
    device(container).add()
    device(container).status()  # a container has it, as it should


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("content", ["", "{", "{}", '{"name": 7}'])
def test_a_damaged_memory_does_not_keep_the_device_from_home(host: Host, container: Container, content: str) -> None:
    runtime = device(container)
    runtime.add()
    (file,) = host.state.glob("devices/*")
    file.write_text(content)
    runtime.check()
    runtime.gc()
    runtime.delete()
    assert "hd0" in names(host)
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("wire")
@pytest.mark.exhaustive
def test_a_go_add_is_checked_and_removed_by_ours(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    theirs = device(container, by=go_runner, ipam=DUAL, cniVersion="1.0.0")
    ours = device(container, ipam=DUAL, cniVersion="1.0.0")
    inside = of_namespace(container)
    for remembered in (True, False):
        ours.result = theirs.add()
        assert container.pings("10.1.0.1")
        ours.check()
        if not remembered:
            ours.forget()
        ours.delete()
        ours.delete()
        assert of_namespace(container) == inside
        found = link(host, "hd0")
        assert "ifalias" not in found  # as newer ones do; that of Debian leaves it
        assert not list(host.state.glob("networks/test/10*"))


@pytest.mark.usefixtures("wire")
@pytest.mark.exhaustive
def test_our_add_is_checked_and_removed_by_go(host: Host, container: Container, go_runner: type[PluginRunner]) -> None:
    theirs = device(container, by=go_runner, ipam=DUAL, cniVersion="1.0.0")
    ours = device(container, ipam=DUAL, cniVersion="1.0.0")
    inside = of_namespace(container)
    theirs.result = ours.add()
    theirs.check()
    theirs.delete()
    assert of_namespace(container) == inside
    assert "hd0" in names(host)
    device(container).gc()
    is_as_before(host)


@pytest.mark.usefixtures("wire")
@pytest.mark.exhaustive
def test_both_make_the_same_result(container: Container, go_runner: type[PluginRunner]) -> None:
    results = []
    for kind in (go_runner, PluginRunner):
        runtime = device(container, by=kind, ipam=STATIC, cniVersion="1.0.0")
        results.append({**runtime.add(), "dns": {}})
        runtime.delete()
    assert results[0] == results[1]


@pytest.mark.usefixtures("wire")
@pytest.mark.exhaustive
@pytest.mark.newer_go
@pytest.mark.parametrize("ipam", [{}, STATIC], ids=["no addresses", "addresses"])
def test_both_make_the_same_result_of_what_dpdk_drives(
    container: Container, go_runner: type[PluginRunner], ipam: dict[str, Any]
) -> None:
    results = []
    for kind in (go_runner, PluginRunner):
        runtime = device(container, by=kind, ipam=ipam, DPDKMode=True)
        results.append(runtime.add())
        runtime.delete()
    assert results[0] == results[1]


@pytest.mark.usefixtures("wire")
@pytest.mark.direct
def test_as_an_executable(host: Host, container: Container, bin_directory: Path) -> None:
    runtime = device(container, ipam=STATIC)

    def call(command: str, **more: Any) -> str:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container.id, "CNI_NETNS": container.path}
        env |= {"CNI_IFNAME": "eth0", "CNI_PATH": str(bin_directory)}
        stdin = json.dumps(runtime.config | more)
        done = subprocess.run(
            [bin_directory / "host-device"], env=env, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    result = json.loads(call("ADD"))
    assert container.pings("10.1.0.1")
    call("CHECK", prevResult=result)
    call("DEL", prevResult=result)
    call("DEL")
    is_as_before(host)


def test_the_example_of_its_readme_works(host: Host, container: Container) -> None:
    readme = Path(__file__).parents[2] / "plugins" / "host_device" / "README.md"
    (example,) = re.findall(r"^```json\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    config = json.loads(example)
    host.run(f"ip link add {config['device']} type veth peer name far && ip link set far up")
    runtime = PluginRunner("host-device", container, **config, dataDir=str(host.state / "devices"))
    assert len(runtime.add()["ips"]) == 2
    runtime.check()
    runtime.delete()
    assert names(container) == {"lo"}
