"""host-device: the device moves into the container with ADD, and back with its previous settings with DEL."""

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

from .conftest import failing_ipam

MAC = "02:aa:bb:cc:dd:01"
ADDRESSES = [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}]
STATIC = {"type": "static", "addresses": ADDRESSES, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}, {"dst": "fd00:9::/64", "gw": "fd00:1::1"}],
}


@pytest.fixture
def connected_device(host: Host) -> str:
    """hd0: a link that is up, has addresses, and is connected to hd1, which has 10.1.0.1 and fd00:1::1."""
    host.run(f"ip link add hd0 mtu 1400 address {MAC} type veth peer name hd1 mtu 1400")
    host.run("sysctl -q net.ipv6.conf.hd0.accept_dad=0 net.ipv6.conf.hd1.accept_dad=0")
    host.run("ip addr add 192.0.2.7/28 dev hd0 && ip addr add 2001:db8::7/64 dev hd0 nodad && ip link set hd0 up")
    host.run("ip addr add 10.1.0.1/24 dev hd1 && ip addr add fd00:1::1/64 dev hd1 nodad && ip link set hd1 up")
    return "hd0"


def device(container: Container, *, runner_class: type[PluginRunner] = PluginRunner, **config: Any) -> PluginRunner:
    """Return a runner for host-device that stores device files in a directory of the test."""
    options = {"device": "hd0", "dataDir": str(container.host.state / "devices"), **config}
    return runner_class("host-device", container, **{key: value for key, value in options.items() if value is not None})


def link(netns: Container | Host, name: str) -> dict[str, Any]:
    (found,) = netns.json(f"ip -j -d addr show dev {name}")
    return dict(found)


def link_names(netns: Container | Host) -> set[str]:
    return {found["ifname"] for found in netns.json("ip -j link")}


def addresses(found: dict[str, Any]) -> set[str]:
    return {f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["scope"] == "global"}


def assert_restored(host: Host) -> None:
    """Assert that hd0 is on the host with all settings of `connected_device`."""
    found = link(host, "hd0")
    assert (found["address"], found["mtu"], found.get("ifalias", "")) == (MAC, 1400, "")
    assert addresses(found) == {"192.0.2.7/28", "2001:db8::7/64"}
    assert {"UP", "PROMISC", "ALLMULTI"}.intersection(found["flags"]) == {"UP"}
    assert found["txqlen"] == 1000
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("connected_device")
def test_device_moves_into_the_container_and_is_restored_on_the_host(host: Host, container: Container) -> None:
    runner = device(container, ipam=STATIC)
    result = runner.add()
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": container.path}]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.2/24", 0), ("fd00:1::2/64", 0)]
    assert "hd0" not in link_names(host)
    found = link(container, "eth0")
    assert (found["ifalias"], found["mtu"]) == ("hd0", 1400)
    assert addresses(found) == {"10.1.0.2/24", "fd00:1::2/64"}
    assert container.pings("10.1.0.1")
    assert container.pings("fd00:1::1")
    runner.check()
    runner.delete()
    assert link_names(container) == {"lo"}
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_device_without_ipam_is_up_and_has_no_addresses(host: Host, container: Container) -> None:
    runner = device(container)
    assert runner.add() == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": container.path}],
    }
    found = link(container, "eth0")
    assert "UP" in found["flags"]
    assert addresses(found) == set()
    runner.check()
    runner.delete()
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_down_state_and_alias_are_restored(host: Host, container: Container) -> None:
    host.run("ip link set hd0 down && ip link set hd0 alias uplink && ip addr flush dev hd0")
    before = of_host(host)
    runner = device(container)
    runner.add()
    runner.check()
    runner.delete()
    assert of_host(host) == before


@pytest.mark.usefixtures("connected_device")
def test_promiscuous_flags_and_queue_length_are_restored(host: Host, container: Container) -> None:
    host.run("ip link set hd0 promisc on allmulticast on txqueuelen 77")
    runner = device(container)
    runner.add()
    container.run("ip link set eth0 promisc off allmulticast off txqueuelen 1000")
    runner.delete()
    found = link(host, "hd0")
    assert {"PROMISC", "ALLMULTI"} <= set(found["flags"])
    assert found["txqlen"] == 77


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize(
    ("selector", "value"),
    [("device", "hd0"), ("hwaddr", MAC), ("hwaddr", MAC.upper()), ("hwaddr", "02aa.bbcc.dd01")],
)
def test_link_is_selected_by_name_or_mac(host: Host, container: Container, selector: str, value: str) -> None:
    runner = device(container, **{"device": None, selector: value})
    runner.add()
    runner.check()
    assert "hd0" not in link_names(host)
    runner.delete()
    assert_restored(host)


@pytest.fixture
def sysfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replace /sys by a directory with three devices that have no interface yet."""
    directory = tmp_path / "sys"
    monkeypatch.setattr(devices, "SYS", directory)
    for place in ("pci0000:00/0000:00:03.0/virtio0", "pci0000:00/0000:00:04.0", "virtual/mlx5_core.sf.2"):
        (directory / "devices" / place).mkdir(parents=True)
    for bus in ("pci", "auxiliary"):
        (directory / "bus" / bus / "devices").mkdir(parents=True)
        (directory / "bus" / bus / "drivers").mkdir()
    for address in ("0000:00:03.0", "0000:00:04.0"):
        (directory / "bus/pci/devices" / address).symlink_to(directory / "devices/pci0000:00" / address)
    (directory / "bus/auxiliary/devices/mlx5_core.sf.2").symlink_to(directory / "devices/virtual/mlx5_core.sf.2")
    return directory


@pytest.mark.usefixtures("connected_device")
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
def test_device_is_selected_by_pci_address_device_id_or_kernel_path(
    host: Host, container: Container, sysfs: Path, place: str, config: dict[str, Any]
) -> None:
    (sysfs / "devices" / place / "net" / "hd0").mkdir(parents=True)
    runner = device(container, device=None, **config)
    runner.status()
    runner.add()
    runner.check()
    assert "hd0" not in link_names(host)
    runner.delete()
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_selectors_have_an_order_of_precedence(host: Host, container: Container, sysfs: Path) -> None:
    host.run("ip link add other type veth peer name others")
    (sysfs / "devices/pci0000:00/0000:00:04.0/net/other").mkdir(parents=True)
    (sysfs / "devices/virtual/mlx5_core.sf.2/net/others").mkdir(parents=True)
    selectors = {
        "hwaddr": link(host, "other")["address"],
        "kernelpath": "/sys/devices/pci0000:00/0000:00:04.0",
        "pciBusID": "0000:00:04.0",
        "runtimeConfig": {"deviceID": "mlx5_core.sf.2"},
    }
    for omitted, expected in (
        ((), "hd0"),
        (("device",), "other"),
        (("device", "hwaddr"), "other"),
        (("device", "hwaddr", "kernelpath"), "others"),
    ):
        runner = device(container, **{**selectors, **dict.fromkeys(omitted)})
        runner.add()
        assert link(container, "eth0")["ifalias"] == expected
        runner.delete()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'),
        ({"device": "nope"}, 'failed to find host device: device "nope": link not found'),
        ({"hwaddr": "02:00:00:00:00:77"}, 'failed to find host device: hwaddr "02:00:00:00:00:77": link not found'),
        ({"hwaddr": "bogus"}, 'hwaddr: failed to parse MAC address "bogus"'),
        ({"kernelpath": "/tmp/x"}, 'kernel device path "/tmp/x" must be absolute and begin with /sys/devices/'),
        ({"kernelpath": "/sys/devices/../x"}, "must be absolute and begin with /sys/devices/"),
        ({"kernelpath": "/sys/devices/none"}, "failed to find host device: .*/devices/none does not exist"),
        ({"pciBusID": "0000:ff:00.0"}, "failed to find host device: .*/bus/pci/devices/0000:ff:00.0 does not exist"),
        ({"pciBusID": "0000:00:04.0"}, 'failed to find host device: pciBusID "0000:00:04.0": link not found'),
        ({"pciBusID": "../x"}, r'pciBusID: "\.\./x" is not a bus address'),
        (
            {"runtimeConfig": {"deviceID": "0000:ff:00.0"}},
            "runtime config DeviceID 0000:ff:00.0 not found or unsupported",
        ),
        ({"device": "lo"}, "cannot move lo into .* as eth0: "),
        ({"device": "x" * 16}, "device: "),
    ],
)
def test_error_names_a_missing_device_and_del_succeeds(
    host: Host, container: Container, sysfs: Path, config: dict[str, Any], message: str
) -> None:
    runner = device(container, **{"device": None, **config})
    before = of_host(host)
    with pytest.raises(CniError, match=message):
        runner.add()
    runner.delete()
    assert of_host(host) == before


@pytest.mark.usefixtures("connected_device")
def test_error_names_the_container_that_uses_the_device(containers: list[Container]) -> None:
    device(containers[0]).add()
    for config in ({}, {"device": None, "hwaddr": MAC}):
        with pytest.raises(CniError, match=f"the device is eth0 of container {containers[0].id}"):
            device(containers[1], **config).add()


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic", "igb_uio"])
def test_device_with_dpdk_driver_stays_on_the_host_and_ipam_is_called(
    host: Host, container: Container, sysfs: Path, driver: str
) -> None:
    (sysfs / "bus/pci/drivers" / driver).mkdir()
    (sysfs / "devices/pci0000:00/0000:00:04.0/driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
    runner = device(container, device=None, pciBusID="0000:00:04.0", ipam=DUAL)
    runner.status()
    result = runner.add()
    assert result["interfaces"] == [{"name": "eth0", "sandbox": container.path}]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.2/24", 0), ("fd00:1::2/64", 0)]
    assert link_names(container) == {"lo"}
    runner.check()
    runner.delete()
    assert not list(host.state.glob("networks/test/10*"))
    without_addresses = device(container, device=None, pciBusID="0000:00:04.0").add()
    assert without_addresses == {"cniVersion": "1.1.0", "interfaces": result["interfaces"]}


@pytest.mark.usefixtures("connected_device")
def test_dpdk_mode_can_be_configured(host: Host, container: Container) -> None:
    runner = device(container, DPDKMode=True)
    runner.add()
    runner.check()
    assert "hd0" in link_names(host)
    runner.delete()
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("ipam", [{}, DUAL])
def test_add_check_and_del_leave_nothing_behind(container: Container, ipam: dict[str, Any]) -> None:
    check_lifecycle(device(container, ipam=ipam))


@pytest.mark.usefixtures("connected_device")
def test_container_id_longer_than_a_file_name_is_supported(container: Container) -> None:
    container.id = "c" * 250
    check_lifecycle(device(container, ipam=DUAL))


@pytest.mark.usefixtures("connected_device")
def test_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("connected_device")
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(container: Container) -> None:
    """GC finds the namespace in the device file."""
    assert kill_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("connected_device")
def test_device_is_restored_if_ipam_fails(host: Host, container: Container) -> None:
    with pytest.raises(CniError, match="the pool is dry"):
        device(container, ipam=failing_ipam(host)).add()
    assert link_names(container) == {"lo"}
    assert_restored(host)
    device(container).add()


@pytest.mark.usefixtures("connected_device")
def test_del_can_be_repeated(host: Host, container: Container) -> None:
    runner = device(container, ipam=DUAL)
    runner.add()
    for _ in range(3):
        runner.delete()
        assert_restored(host)
        runner.forget()


ROUTES = (
    "-4 203.0.113.0/24 via 192.0.2.1 dev hd0 metric 7 mtu 1300",
    "-4 198.51.100.0/25 dev hd0 src 192.0.2.7",
    "-4 198.51.100.128/25 via 10.99.0.1 dev hd0 onlink table 300",
    "-6 default via 2001:db8::1 dev hd0 metric 5 proto static",
    "-6 2001:db8:9::/64 via fe80::1 dev hd0",
)


def device_routes(host: Host) -> set[str]:
    """Return the routes on hd0 that the kernel did not create."""
    listed = [
        {"family": family, **route}
        for family in ("-4", "-6")
        for route in host.json(f"ip -j {family} route show table all dev hd0")
        if route.get("protocol") != "kernel"
    ]
    return {json.dumps(route | {"flags": sorted({*route["flags"]} - {"linkdown"})}, sort_keys=True) for route in listed}


@pytest.fixture
def added_routes(host: Host, connected_device: str) -> set[str]:
    """Add routes on hd0 and return them."""
    host.run(" && ".join(f"ip {route[:2]} route add {route[3:]}" for route in ROUTES))
    assert len(device_routes(host)) == len(ROUTES)
    return device_routes(host)


@pytest.mark.parametrize("state", ["up", "down"])
def test_routes_are_restored(host: Host, container: Container, added_routes: set[str], state: str) -> None:
    """Also if the link has no carrier when it is moved back."""
    runner = device(container)
    runner.add()
    host.run(f"ip link set hd1 {state}")
    runner.delete()
    assert device_routes(host) == added_routes


@pytest.mark.usefixtures("connected_device")
def test_many_routes_are_restored(host: Host, container: Container) -> None:
    """More than one batch: the kernel's answers to all of them would not fit into the socket's receive buffer."""
    script = "for i in $(seq 0 9); do seq -f route\\ add\\ 10.9$i.%g.0/24\\ dev\\ hd0 0 255; done"
    host.run(f"{script} | ip -batch -")
    before, runner = device_routes(host), device(container)
    assert len(before) == 2560
    runner.add()
    runner.delete()
    assert device_routes(host) == before


def test_gc_restores_routes_of_a_device_that_the_kernel_moved_back(
    host: Host, container: Container, added_routes: set[str]
) -> None:
    runner = device(container)
    runner.add()
    container.run(f"ip link set eth0 netns {host.path} name dev3")
    runner.gc()
    assert device_routes(host) == added_routes


def test_failed_add_restores_the_routes(host: Host, container: Container, added_routes: set[str]) -> None:
    with pytest.raises(CniError, match="the pool is dry"):
        device(container, ipam=failing_ipam(host)).add()
    assert device_routes(host) == added_routes


@pytest.mark.usefixtures("connected_device")
@pytest.mark.direct
def test_routes_added_in_the_meantime_are_kept(
    host: Host, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    host.run("ip route add 203.0.113.0/24 via 192.0.2.1")
    runner = device(container)
    runner.add()
    host.run("ip route add 203.0.113.0/24 via 10.1.0.9")
    runner.delete()
    assert "203.0.113.0/24 via 10.1.0.9 dev hd1" in host.run("ip route")
    assert not device_routes(host)
    assert "was moved back, but" not in caplog.text


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("attributes", ["via inet6 fe80::1", "tos 8", "proto dhcp", "proto 186"])
def test_routes_of_daemons_and_unsupported_routes_are_not_restored(
    host: Host, container: Container, attributes: str
) -> None:
    """A route without its unsupported attribute could have another effect. Protocol 186 is BGP."""
    host.run(f"ip route add 203.0.113.0/24 {attributes} dev hd0")
    assert device_routes(host)
    runner = device(container)
    runner.add()
    runner.delete()
    assert not device_routes(host)


def port_of(host: Host) -> dict[str, Any]:
    """Return the bridge or bond of hd0 and its settings as a port."""
    found = link(host, "hd0")
    settings = ("hairpin", "isolated", "learning", "flood", "fastleave", "guard", "priority")
    data = found.get("linkinfo", {}).get("info_slave_data", {})
    return {"master": found.get("master"), **{name: data.get(name) for name in settings}}


@pytest.fixture
def bridge_port(host: Host, connected_device: str) -> dict[str, Any]:
    """Make hd0 a port of br0 with settings other than the defaults; return them."""
    host.run(f"ip addr flush dev {connected_device} && ip link add br0 type bridge && ip link set br0 up")
    host.run("ip link set hd0 master br0 && bridge link set dev hd0 isolated on learning off hairpin on priority 3")
    assert port_of(host).items() >= {"master": "br0", "isolated": True, "learning": False, "hairpin": True}.items()
    return port_of(host)


def test_bridge_port_is_restored_with_its_settings(
    host: Host, container: Container, bridge_port: dict[str, Any]
) -> None:
    before, runner = of_host(host), device(container, ipam=DUAL)
    runner.add()
    runner.check()
    runner.delete()
    assert of_host(host) == before
    assert port_of(host) == bridge_port


@pytest.mark.usefixtures("bridge_port")
@pytest.mark.exhaustive
def test_failed_add_restores_a_bridge_port(container: Container) -> None:
    assert fail_at_every_change(lambda: device(container, ipam=DUAL)) >= 4


@pytest.mark.usefixtures("bridge_port")
@pytest.mark.direct
def test_device_moves_back_if_its_bridge_was_deleted(
    host: Host, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    runner = device(container)
    runner.add()
    host.run("ip link del br0")
    runner.delete()
    assert link(host, "hd0").keys().isdisjoint({"master", "ifalias"})
    assert "hd0 was moved back, but its master br0 is gone" in caplog.text


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_vlans_of_a_bridge_port_are_restored(host: Host, container: Container, bridge_port: dict[str, Any]) -> None:
    """VLAN 1, which the kernel adds to a new port, is removed."""
    host.run("ip link set br0 type bridge vlan_filtering 1 && bridge vlan del dev hd0 vid 1")
    host.run("bridge vlan add dev hd0 vid 10 pvid untagged && bridge vlan add dev hd0 vid 20-22")
    before = host.json("bridge -j vlan show dev hd0")
    runner = device(container)
    runner.add()
    runner.delete()
    assert host.json("bridge -j vlan show dev hd0") == before
    assert port_of(host) == bridge_port


@pytest.mark.needs_kernel("vrf")
def test_vrf_membership_and_routes_are_restored(host: Host, container: Container, connected_device: str) -> None:
    host.run(f"ip link add red type vrf table 500 && ip link set red up && ip link set {connected_device} master red")
    host.run("ip addr add 2001:db8::7/64 dev hd0 nodad")  # the kernel removed it when the link joined the VRF
    host.run("ip route add 203.0.113.0/24 via 192.0.2.1 table 500 && ip -6 route add default via 2001:db8::1 table 500")
    before, runner = of_host(host), device(container)
    runner.add()
    runner.delete()
    assert of_host(host) == before
    assert_restored(host)


@pytest.mark.needs_kernel("bond")
def test_bond_membership_and_permanent_mac_are_restored(
    host: Host, container: Container, connected_device: str
) -> None:
    host.run("ip addr flush dev hd0 && ip link add lag type bond && ip link add spare type veth peer name spares")
    host.run("ip link set spare master lag && ip link set hd0 down && ip link set hd0 master lag && ip link set lag up")
    assert link(host, "hd0")["address"] == link(host, "spare")["address"] != MAC
    before, runner = of_host(host), device(container)
    runner.add()
    runner.delete()
    assert of_host(host) == before
    host.run("ip link set hd0 nomaster")
    assert link(host, "hd0")["address"] == MAC


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_del_without_netns_path_finds_the_namespace_and_releases_the_addresses(
    host: Host, container: Container, netns: str
) -> None:
    runner = device(container, ipam=DUAL)
    runner.add()
    runner.netns = netns
    runner.delete()
    assert not list(host.state.glob("networks/test/10*"))
    assert link_names(container) == {"lo"}
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_del_releases_the_addresses_after_namespace_and_virtual_device_are_gone(
    host: Host, container: Container, netns: str
) -> None:
    runner = device(container, ipam=DUAL)
    runner.add()
    runner.netns = netns
    container.close()
    wait_for(lambda: "hd1" not in link_names(host), "the end of the namespace")
    runner.delete()
    assert not list(host.state.glob("networks/test/10*"))
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("name", ["eth0", "dev3", "hd0"])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_settings_of_a_device_that_the_kernel_moved_back_are_restored(
    host: Host, container: Container, name: str, verb: str
) -> None:
    """The kernel moves it back down, without addresses, with the container's name for it or a new one.

    test_host_device_pci.py shows this with real devices.
    """
    runner = device(container)
    runner.add()
    container.run(f"ip link set eth0 netns {host.path} name {name}")
    assert addresses(link(host, name)) == set()
    runner.netns = ""
    if verb == "DEL":
        runner.delete()
    else:
        runner.gc()
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_device_moved_back_by_the_administrator_is_not_changed(host: Host, container: Container) -> None:
    runner = device(container)
    runner.add()
    container.run(f"ip link set eth0 alias '' netns {host.path} name hd0")
    host.run("ip addr add 198.51.100.1/24 dev hd0")
    runner.delete()
    assert addresses(link(host, "hd0")) == {"198.51.100.1/24"}
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("connected_device")
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
def test_device_changed_by_the_container_is_restored(host: Host, container: Container, change: str) -> None:
    """Also if another link of the container has the device's original name."""
    runner = device(container, ipam=DUAL)
    runner.add()
    container.run(change)
    before = link_names(container) - {"eth0", "lan7"}
    runner.delete()
    assert link_names(container) == before
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_device_gets_another_name_if_its_name_is_in_use(host: Host, container: Container) -> None:
    runner = device(container)
    runner.add()
    host.run("ip link add hd0 type veth peer name hd2")
    runner.delete()
    assert link_names(container) == {"lo"}
    (name,) = [name for name in link_names(host) if name.startswith("dev")]
    assert addresses(link(host, name)) == {"192.0.2.7/28", "2001:db8::7/64"}
    runner.delete()


@pytest.mark.usefixtures("connected_device")
def test_gc_moves_devices_without_a_valid_attachment_back(host: Host, containers: list[Container]) -> None:
    first, alive = device(containers[0], ipam=DUAL), device(containers[1], device="other", ipam=DUAL)
    host.run("ip link add other type veth peer name others")
    for runner in (first, alive):
        runner.add()
    first.gc(first, alive)
    first.check()
    first.gc(alive)
    alive.check()
    assert addresses(link(host, "hd0")) == {"192.0.2.7/28", "2001:db8::7/64"}
    assert len(list(host.state.glob("devices/*"))) == 1
    assert [path.name for path in host.state.glob("networks/test/10.*")] == ["10.1.0.3"]


@pytest.mark.usefixtures("connected_device")
def test_gc_keeps_devices_of_other_networks(container: Container) -> None:
    runner = device(container)
    runner.add()
    device(container, name="other").gc()
    runner.check()


@pytest.mark.usefixtures("connected_device")
def test_del_keeps_a_device_of_another_attachment(host: Host, container: Container) -> None:
    """The netns path may already refer to another container when DEL is called."""
    other = device(container)
    other.result = other.add()
    runner = device(container)
    runner.container = Container(host)
    runner.netns = other.netns
    runner.result = other.result
    runner.delete()
    other.check()
    runner.container.close()


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("alias", ["", "uplink"])
def test_existing_interface_is_neither_used_nor_deleted(host: Host, container: Container, alias: str) -> None:
    container.run(f"ip link add eth0 type veth peer name other && ip link set eth0 alias '{alias}'")
    runner = device(container)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        runner.add()
    runner.delete()
    assert {"eth0", "other"} <= link_names(container)
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
def test_result_contains_dns_of_ipam_unless_configured(container: Container) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}], "dns": {"nameservers": ["10.1.0.53"]}}
    runner = device(container, ipam=ipam)
    assert runner.add()["dns"] == {"nameservers": ["10.1.0.53"]}
    runner.delete()
    runner = device(container, ipam=ipam, dns={"nameservers": ["10.1.0.54"]})
    assert runner.add()["dns"] == {"nameservers": ["10.1.0.54"]}


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize(
    ("change", "message"),
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
def test_check_reports_changes_of_the_device_its_addresses_and_routes(
    container: Container, change: str, message: str
) -> None:
    runner = device(container, ipam=DUAL)
    runner.add()
    runner.check()
    container.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


@pytest.mark.usefixtures("connected_device")
def test_check_calls_ipam(host: Host, container: Container) -> None:
    runner = device(container, ipam=DUAL)
    runner.add()
    (host.state / "networks" / "test" / "10.1.0.2").unlink()
    with pytest.raises(CniError):
        runner.check()


@pytest.mark.usefixtures("connected_device")
def test_status_checks_the_device_and_ipam(host: Host, container: Container) -> None:
    device(container, ipam=STATIC).status()
    device(container, device=None).status()  # the runtime can name a device
    for config in ({"device": "nope"}, {"ipam": failing_ipam(host)}, {"pciBusID": "0000:ff:00.0"}):
        with pytest.raises(CniError) as caught:
            device(container, **{"device": None, **config}).status()
        assert caught.value.code == 50
    device(container).add()
    device(container).status()  # the device is in a container


@pytest.mark.usefixtures("connected_device")
@pytest.mark.parametrize("content", ["", "{", "{}", '{"name": 7}'])
def test_device_moves_back_with_a_damaged_device_file(host: Host, container: Container, content: str) -> None:
    runner = device(container)
    runner.add()
    (file,) = host.state.glob("devices/*")
    file.write_text(content)
    runner.check()
    runner.gc()
    runner.delete()
    assert "hd0" in link_names(host)
    assert not list(host.state.glob("devices/*"))


@pytest.mark.usefixtures("connected_device")
@pytest.mark.exhaustive
def test_check_and_del_accept_an_add_of_the_go_plugin(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    by_go = device(container, runner_class=go_runner, ipam=DUAL, cniVersion="1.0.0")
    by_pycni = device(container, ipam=DUAL, cniVersion="1.0.0")
    inside = of_namespace(container)
    for with_prev_result in (True, False):
        by_pycni.result = by_go.add()
        assert container.pings("10.1.0.1")
        by_pycni.check()
        if not with_prev_result:
            by_pycni.forget()
        by_pycni.delete()
        by_pycni.delete()
        assert of_namespace(container) == inside
        found = link(host, "hd0")
        assert "ifalias" not in found  # Go 1.9 removes the alias, Go 1.1 does not
        assert not list(host.state.glob("networks/test/10*"))


@pytest.mark.usefixtures("connected_device")
@pytest.mark.exhaustive
def test_go_plugin_checks_and_deletes_an_add_of_pycni(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    by_go = device(container, runner_class=go_runner, ipam=DUAL, cniVersion="1.0.0")
    by_pycni = device(container, ipam=DUAL, cniVersion="1.0.0")
    inside = of_namespace(container)
    by_go.result = by_pycni.add()
    by_go.check()
    by_go.delete()
    assert of_namespace(container) == inside
    assert "hd0" in link_names(host)
    device(container).gc()
    assert_restored(host)


@pytest.mark.usefixtures("connected_device")
@pytest.mark.exhaustive
def test_result_is_the_same_as_the_go_plugins(container: Container, go_runner: type[PluginRunner]) -> None:
    results = []
    for runner_class in (go_runner, PluginRunner):
        runner = device(container, runner_class=runner_class, ipam=STATIC, cniVersion="1.0.0")
        results.append({**runner.add(), "dns": {}})
        runner.delete()
    assert results[0] == results[1]


@pytest.mark.usefixtures("connected_device")
@pytest.mark.exhaustive
@pytest.mark.newer_go
@pytest.mark.parametrize("ipam", [{}, STATIC], ids=["no addresses", "addresses"])
def test_result_for_a_dpdk_device_is_the_same_as_the_go_plugins(
    container: Container, go_runner: type[PluginRunner], ipam: dict[str, Any]
) -> None:
    results = []
    for runner_class in (go_runner, PluginRunner):
        runner = device(container, runner_class=runner_class, ipam=ipam, DPDKMode=True)
        results.append(runner.add())
        runner.delete()
    assert results[0] == results[1]


@pytest.mark.usefixtures("connected_device")
@pytest.mark.direct
def test_executable_handles_add_check_and_del(host: Host, container: Container, bin_directory: Path) -> None:
    runner = device(container, ipam=STATIC)

    def call(command: str, **members: Any) -> str:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container.id, "CNI_NETNS": container.path}
        env |= {"CNI_IFNAME": "eth0", "CNI_PATH": str(bin_directory)}
        stdin = json.dumps(runner.config | members)
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
    assert_restored(host)


def test_example_of_the_readme(host: Host, container: Container) -> None:
    readme = Path(__file__).parents[2] / "plugins" / "host_device" / "README.md"
    (example,) = re.findall(r"^```json\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    config = json.loads(example)
    host.run(f"ip link add {config['device']} type veth peer name far && ip link set far up")
    runner = PluginRunner("host-device", container, **config, dataDir=str(host.state / "devices"))
    assert len(runner.add()["ips"]) == 2
    runner.check()
    runner.delete()
    assert link_names(container) == {"lo"}
