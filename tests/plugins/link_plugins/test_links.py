"""macvlan, vlan, ipvlan, dummy and tap: common behaviour."""

import json
import re
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.namespace import Namespace
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.testing import (
    Container,
    Host,
    PluginRunner,
    check_lifecycle,
    fail_at_every_change,
    kill_at_every_change,
    wait_for,
)
from tests.plugins.conftest import failing_ipam

CreateRunner = Callable[..., PluginRunner]
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "10.9.0.0/16"}, {"dst": "fd00:9::/64"}],
}


def link(netns: Container | Host, name: str = "eth0") -> dict[str, Any]:
    (found,) = netns.json(f"ip -j -d link show dev {name}")
    return dict(found)


def link_names(netns: Container | Host) -> set[str]:
    return {found["ifname"] for found in netns.json("ip -j link")}


def test_add_check_and_del_leave_nothing_behind(attachment: CreateRunner, plugin: str) -> None:
    check_lifecycle(attachment(plugin, ipam=DUAL))


def test_failed_add_leaves_nothing_behind(attachment: CreateRunner, plugin: str) -> None:
    assert fail_at_every_change(lambda: attachment(plugin, ipam=DUAL)) > 2


@pytest.mark.exhaustive
def test_del_cleans_up_after_a_killed_add(attachment: CreateRunner, plugin: str) -> None:
    """GC cannot: it receives no path of a network namespace."""
    assert kill_at_every_change(lambda: attachment(plugin, ipam=DUAL), gc=False) > 2


def test_result_contains_the_link_and_its_addresses(
    attachment: CreateRunner, plugin: str, container: Container, kind_of: Callable[[str], str]
) -> None:
    runner = attachment(plugin)
    result = runner.add()
    made = link(container)
    assert made["linkinfo"]["info_kind"] == kind_of(plugin)
    assert made["ifalias"] == runner.owner.label
    assert result["interfaces"] == [{"name": "eth0", "mac": made["address"], "sandbox": container.path}]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.2/24", 0), ("fd00:1::2/64", 0)]
    assert "default via 10.1.0.1" in container.run("ip -4 route")
    assert "default via fd00:1::1" in container.run("ip -6 route")
    runner.check()


def test_example_of_the_readme(
    lan: Container, plugin: str, host: Host, container: Container, request: pytest.FixtureRequest
) -> None:
    if plugin == "tap":
        request.getfixturevalue("other_users")
    readme = Path(__file__).parents[3] / "plugins" / plugin / "README.md"
    (example,) = re.findall(r"^```json\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    host.run("ip link set eth0 down && ip link set eth0 name eth1 && ip link set eth1 up")
    runner = PluginRunner(plugin, container, **json.loads(example))
    assert len(runner.add()["ips"]) == 2
    runner.check()
    runner.delete()
    assert link_names(container) == {"lo"}


@pytest.mark.parametrize(
    "plugin", ["macvlan", "tap", pytest.param("vlan", marks=pytest.mark.needs_kernel("vlan"))], indirect=True
)
def test_executable_handles_add_check_and_del(
    attachment: CreateRunner, plugin: str, container: Container, bin_directory: Path
) -> None:
    runner = attachment(plugin)

    def call(command: str, **more: Any) -> str:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container.id, "CNI_NETNS": container.path}
        env |= {"CNI_IFNAME": "eth0", "CNI_PATH": str(bin_directory)}
        stdin = json.dumps(runner.config | more)
        done = subprocess.run(
            [bin_directory / plugin], env=env, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    result = json.loads(call("ADD"))
    assert "eth0" in link_names(container)
    call("CHECK", prevResult=result)
    call("DEL", prevResult=result)
    call("DEL")
    assert link_names(container) == {"lo"}


def test_link_is_deleted_if_ipam_fails_and_the_next_add_succeeds(
    attachment: CreateRunner, plugin: str, host: Host, container: Container
) -> None:
    with pytest.raises(CniError, match="the pool is dry") as caught:
        attachment(plugin, ipam=failing_ipam(host)).add()
    assert caught.value.code == 50
    assert "eth0" not in link_names(container)
    attachment(plugin).add()


def test_existing_interface_is_neither_used_nor_deleted(
    attachment: CreateRunner, plugin: str, container: Container
) -> None:
    """ADD fails, and the DEL after it keeps the interface."""
    container.run("ip link add eth0 type veth peer name other")
    runner = attachment(plugin)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        runner.add()
    runner.delete()
    assert {"eth0", "other"} <= link_names(container)


@pytest.mark.parametrize(
    ("plugin", "create_existing"),
    [("tap", "ip tuntap add dev eth0 mode tap"), ("macvlan", "ip link add eth0 link nic type macvlan")],
)
def test_existing_interface_of_the_same_kind_is_not_deleted(
    attachment: CreateRunner, container: Container, plugin: str, create_existing: str
) -> None:
    container.run(f"ip link add nic type veth peer name other && {create_existing}")
    runner = attachment(plugin)
    with pytest.raises(CniError, match='interface "eth0" already exists'):
        runner.add()
    runner.delete()
    assert "eth0" in link_names(container)


def test_del_keeps_a_link_with_the_label_of_another_attachment(
    attachment: CreateRunner, plugin: str, container: Container
) -> None:
    """The netns path may already refer to another container when DEL is called."""
    other_attachment, runner = attachment(plugin), attachment(plugin, name="other")
    other_attachment.add()
    runner.delete()
    other_attachment.check()


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/hostname"])
def test_del_without_a_namespace_releases_the_addresses(
    attachment: CreateRunner, plugin: str, host: Host, netns: str
) -> None:
    runner = attachment(plugin, ipam=DUAL)
    runner.add()
    store = host.state / "networks" / "test"
    assert (store / "10.1.0.2").exists()
    runner.netns = netns
    runner.delete()
    assert not (store / "10.1.0.2").exists()


def test_result_contains_dns_of_ipam_unless_configured(attachment: CreateRunner, plugin: str) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}], "dns": {"nameservers": ["10.1.0.53"]}}
    runner = attachment(plugin, ipam=ipam)
    assert runner.add()["dns"] == {"nameservers": ["10.1.0.53"]}
    runner.delete()
    runner = attachment(plugin, ipam=ipam, dns={"nameservers": ["10.1.0.54"]})
    assert runner.add()["dns"] == {"nameservers": ["10.1.0.54"]}


def test_status_calls_ipam(attachment: CreateRunner, plugin: str, host: Host) -> None:
    attachment(plugin).status()
    with pytest.raises(CniError, match="the pool is dry") as caught:
        attachment(plugin, ipam=failing_ipam(host)).status()
    assert caught.value.code == 50


def test_gc_releases_the_addresses_of_deleted_containers(
    attachment: CreateRunner, plugin: str, host: Host, containers: list[Container]
) -> None:
    deleted = attachment(plugin, containers[0], ipam=DUAL)
    deleted.add()
    deleted.gc()
    assert not (host.state / "networks" / "test" / "10.1.0.2").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip link set eth0 down", "eth0 should have up True"),
        ("ip link set eth0 address 02:00:00:00:00:77", "eth0 should have mac .*, but has 02:00:00:00:00:77"),
        ("ip addr del 10.1.0.2/24 dev eth0", "eth0 has lost 10.1.0.2/24"),
        ("ip addr del fd00:1::2/64 dev eth0", "eth0 has lost fd00:1::2/64"),
        ("ip route del default", "eth0 has lost the route to 0.0.0.0/0"),
        ("ip link del eth0", '"eth0" not found'),
        ("ip link del eth0; ip link add eth0 type veth peer name other", "eth0 should have"),
    ],
)
def test_check_reports_changes_of_the_link_its_addresses_and_routes(
    attachment: CreateRunner, container: Container, change: str, message: str
) -> None:
    runner = attachment("macvlan")
    runner.add()
    container.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


def test_check_calls_ipam(attachment: CreateRunner, plugin: str, host: Host) -> None:
    runner = attachment(plugin, ipam=DUAL)
    runner.add()
    runner.check()
    (host.state / "networks" / "test" / "10.1.0.2").unlink()
    with pytest.raises(CniError):
        runner.check()


@pytest.mark.direct
@pytest.mark.parametrize("plugin", ["macvlan", "vlan", "ipvlan", "dummy"])
def test_status_fails_if_the_kernel_lacks_the_link_kind(
    container: Container, monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    monkeypatch.setattr(registry.load(plugin), "kind", "unknownkind")
    with pytest.raises(CniError, match="this kernel has no unknownkind links") as caught:
        PluginRunner(plugin, container, ipam=ipam, master="lo").status()
    assert caught.value.code == 50


@pytest.mark.direct
def test_expect_kind_names_the_missing_link_kind(host: Host) -> None:
    own = Namespace.own(Journal())
    own.links.expect_kind_supported("veth")
    with pytest.raises(CniError, match="this kernel has no unknownkind links") as caught:
        own.links.expect_kind_supported("unknownkind")
    own.close()
    assert caught.value.code == 50
    assert link_names(host) == {"lo"}


def test_every_address_is_announced_and_neighbours_are_reachable(
    attachment: CreateRunner, plugin_with_master: str, container: Container, sniffer: socket.socket
) -> None:
    runner = attachment(plugin_with_master)
    result = runner.add()
    mac = bytes.fromhex(result["interfaces"][0]["mac"].replace(":", ""))
    announced: set[str] = set()

    def announced_all() -> bool:
        try:
            announced.add(announcement(sniffer.recv(2048), mac))
        except TimeoutError:
            return False
        return {"10.1.0.2", "fd00:1::2"} <= announced

    wait_for(announced_all, "a gratuitous ARP and a neighbour advertisement")
    assert container.pings("10.1.0.1")
    assert container.pings("fd00:1::1")


def announcement(frame: bytes, mac: bytes) -> str:
    """Return the address that the holder of the MAC announces in the frame, or ""."""
    if frame[6:12] != mac:
        return ""
    if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]:
        return socket.inet_ntop(socket.AF_INET, frame[28:32])
    if frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88":
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return ""


def test_addresses_are_not_tentative_and_router_advertisements_are_accepted(
    attachment: CreateRunner, plugin_with_master: str, container: Container
) -> None:
    attachment(plugin_with_master).add()
    (found,) = container.json("ip -j addr show dev eth0")
    assert not [info for info in found["addr_info"] if info["scope"] == "global" and info.get("tentative")]
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "1"


def test_notifications_are_enabled_for_both_families_with_ipv4_addresses_only(
    attachment: CreateRunner, plugin_with_master: str, container: Container
) -> None:
    """Addresses from router advertisements are announced too."""
    attachment(plugin_with_master, ipam={"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}).add()
    settings = container.run("cd /proc/sys/net && cat ipv4/conf/eth0/arp_notify ipv6/conf/eth0/ndisc_notify")
    assert settings.split() == ["1", "1"]


def test_mtu_defaults_to_the_masters_and_can_be_smaller(
    attachment: CreateRunner, plugin_with_master: str, container: Container
) -> None:
    with pytest.raises(CniError, match="mtu: .*greater than or equal to 0"):
        attachment(plugin_with_master, mtu=-1).add()
    runner = attachment(plugin_with_master)
    runner.add()
    assert link(container)["mtu"] == 1400
    runner.delete()
    attachment(plugin_with_master, mtu=1300).add()
    assert link(container)["mtu"] == 1300


@pytest.mark.parametrize(
    "plugin", ["macvlan", pytest.param("vlan", marks=pytest.mark.needs_kernel("vlan"))], indirect=True
)
def test_mtu_larger_than_the_masters_is_refused(attachment: CreateRunner, plugin: str, container: Container) -> None:
    with pytest.raises(CniError, match=r"invalid MTU 1401, must be \[0, master MTU\(1400\)\]"):
        attachment(plugin, mtu=1401).add()
    assert link_names(container) == {"lo"}


@pytest.mark.parametrize(
    "plugin", ["macvlan", pytest.param("ipvlan", marks=pytest.mark.needs_kernel("ipvlan"))], indirect=True
)
def test_link_works_when_a_master_that_was_down_comes_up(
    attachment: CreateRunner, plugin: str, host: Host, container: Container
) -> None:
    host.run("ip link set eth0 down")
    runner = attachment(plugin)
    runner.add()
    runner.check()
    host.run("ip link set eth0 up")
    for router in ("10.1.0.1", "fd00:1::1"):
        wait_for(partial(container.pings, router), router)
    runner.check()


def test_del_succeeds_without_a_master(
    attachment: CreateRunner, plugin_with_master: str, host: Host, container: Container
) -> None:
    runner = attachment(plugin_with_master, ipam=DUAL)
    runner.add()
    host.run("ip link set eth0 down && ip link set eth0 name wan0")
    runner.delete()
    assert link_names(container) == {"lo"}
    host.run("ip link del wan0")
    runner.delete()


def test_error_names_a_missing_master_and_where_it_was_looked_for(
    attachment: CreateRunner, plugin_with_master: str, container: Container
) -> None:
    for place, option in {"the host": {}, "the container": {"linkInContainer": True}}.items():
        with pytest.raises(CniError, match='master "nic7" not found') as caught:
            attachment(plugin_with_master, master="nic7", **option).add()
        assert place in caught.value.details
    assert link_names(container) == {"lo"}


def test_master_can_be_in_the_container(
    attachment: CreateRunner, plugin_with_master: str, container: Container
) -> None:
    container.run("ip link add nic type veth peer name other && ip link set nic up && ip link set other up")
    runner = attachment(plugin_with_master, master="nic", linkInContainer=True)
    runner.add()
    assert link(container)["link"] == "nic"
    runner.check()
    runner.delete()
    assert link_names(container) == {"lo", "nic", "other"}


def test_check_fails_if_the_master_differs(attachment: CreateRunner, plugin_with_master: str, host: Host) -> None:
    runner = attachment(plugin_with_master)
    runner.add()
    host.run("ip link add nic type veth peer name other")
    runner.config["master"] = "nic"
    with pytest.raises(CniError, match="eth0 should be on master nic, but is on another link"):
        runner.check()
