"""macvlan: modes, MAC addresses, and the choice of the master."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner

CreateRunner = Callable[..., PluginRunner]


def link(container: Container) -> dict[str, Any]:
    (found,) = container.json("ip -j -d link show dev eth0")
    return dict(found)


@pytest.mark.parametrize("mode", ["", "bridge", "private", "vepa", "passthru"])
def test_mode_is_set_and_containers_are_connected(attachment: CreateRunner, container: Container, mode: str) -> None:
    runner = attachment("macvlan", mode=mode)
    runner.add()
    assert link(container)["linkinfo"]["info_data"]["mode"] == (mode or "bridge")
    assert container.pings("10.1.0.1")
    runner.check()


def test_unknown_mode_is_refused(attachment: CreateRunner) -> None:
    with pytest.raises(CniError, match='mode: .*"hub"') as caught:
        attachment("macvlan", mode="hub").add()
    assert caught.value.code == 7


@pytest.mark.parametrize(("mode", "reached"), [("bridge", True), ("private", False)])
def test_containers_on_one_master_reach_each_other_only_in_bridge_mode(
    attachment: CreateRunner, containers: list[Container], mode: str, *, reached: bool
) -> None:
    for container, last in zip(containers[:2], (2, 3), strict=True):
        ipam = {"type": "static", "addresses": [{"address": f"10.1.0.{last}/24"}]}
        attachment("macvlan", container, mode=mode, ipam=ipam).add()
    assert containers[0].pings("10.1.0.3") is reached


def test_check_fails_if_the_mode_differs(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("macvlan", mode="vepa")
    runner.add()
    container.run("ip link set eth0 type macvlan mode private")
    with pytest.raises(CniError, match="eth0 should have mode vepa, but has private"):
        runner.check()


def test_passthru_uses_the_mac_of_the_master_exclusively(
    attachment: CreateRunner, host: Host, containers: list[Container]
) -> None:
    attachment("macvlan", containers[0], mode="passthru").add()
    (master,) = host.json("ip -j link show eth0")
    assert link(containers[0])["address"] == master["address"]
    with pytest.raises(CniError, match="cannot create macvlan eth0 on eth0: invalid argument"):
        attachment("macvlan", containers[1]).add()


def test_broadcast_queue_length_is_set_and_validated(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("macvlan", bcqueuelen=4321)
    runner.add()
    assert link(container)["linkinfo"]["info_data"]["bcqueuelen"] == 4321
    runner.check()
    with pytest.raises(CniError, match="bcqueuelen: .*-1"):
        attachment("macvlan", bcqueuelen=-1).add()


CONFIG, ARGS, RUNTIME = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"


@pytest.mark.parametrize("plugin", ["macvlan", "tap"])
@pytest.mark.parametrize(
    ("config", "cni_args", "mac"),
    [
        ({"mac": CONFIG}, "", CONFIG),
        ({"mac": CONFIG}, f"IgnoreUnknown=1;MAC={ARGS}", ARGS),
        ({"mac": CONFIG, "runtimeConfig": {"mac": RUNTIME}}, f"IgnoreUnknown=1;MAC={ARGS}", RUNTIME),
    ],
)
def test_mac_precedence_is_runtime_config_then_cni_args_then_configuration(
    attachment: CreateRunner, container: Container, plugin: str, config: dict[str, Any], cni_args: str, mac: str
) -> None:
    runner = attachment(plugin, **config)
    runner.cni_args = cni_args
    result = runner.add()
    assert result["interfaces"][0]["mac"] == link(container)["address"] == mac
    runner.check()


@pytest.mark.parametrize("plugin", ["macvlan", "tap"])
@pytest.mark.parametrize(("config", "cni_args"), [({"mac": "zz:11"}, ""), ({}, "IgnoreUnknown=1;MAC=zz:11")])
def test_invalid_mac_is_refused(attachment: CreateRunner, plugin: str, config: dict[str, Any], cni_args: str) -> None:
    runner = attachment(plugin, **config)
    runner.cni_args = cni_args
    with pytest.raises(CniError, match='mac: invalid MAC address.*"zz:11"'):
        runner.add()


def test_link_without_ipam_is_up_and_has_no_addresses(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("macvlan", ipam={})
    assert "ips" not in runner.add()
    assert "UP" in link(container)["flags"]
    runner.check()
    runner.delete()


def create_default_routes(host: Host, *routes: str) -> None:
    for name in ("nic1", "nic2"):
        host.run(f"ip link add {name} type veth peer name {name}p && ip link set {name} up && ip link set {name}p up")
    host.run("ip addr add 10.2.0.1/24 dev nic1 && ip addr add 10.3.0.1/24 dev nic2")
    for route in routes:
        family, _, route_arguments = route.partition(" ")
        host.run(f"ip -{family} route add {route_arguments}")


def master_of(container: Container, host: Host) -> str:
    index = link(container)["link_index"]
    (name,) = [found["ifname"] for found in host.json("ip -j link") if found["ifindex"] == index]
    return str(name)


@pytest.mark.parametrize(
    ("routes", "master"),
    [
        (["4 default via 10.2.0.2 metric 20", "4 default via 10.3.0.2 metric 10"], "nic2"),
        (["4 default dev nic1 metric 5", "6 default dev nic2 metric 1"], "nic1"),
        (["6 default dev nic2"], "nic2"),
        (["4 unreachable default metric 1", "4 default via 10.2.0.2 metric 9"], "nic1"),
        (["4 default nexthop via 10.3.0.2 nexthop via 10.2.0.2"], "nic2"),
    ],
)
def test_default_master_is_the_link_of_the_default_route(
    attachment: CreateRunner, host: Host, container: Container, routes: list[str], master: str
) -> None:
    create_default_routes(host, *routes)
    runner = attachment("macvlan", master="")
    runner.add()
    assert master_of(container, host) == master
    runner.check()


def test_add_without_master_fails_if_there_is_no_default_route(attachment: CreateRunner) -> None:
    with pytest.raises(CniError, match="no default route interface found") as caught:
        attachment("macvlan", master="").add()
    assert "name a master" in caught.value.details


def test_default_master_in_the_container_is_the_link_of_its_default_route(
    attachment: CreateRunner, host: Host, container: Container
) -> None:
    create_default_routes(host, "4 default via 10.2.0.2")
    container.run("ip link add nic type veth peer name other && ip link set nic up && ip link set other up")
    with pytest.raises(CniError, match="no default route interface found") as caught:
        attachment("macvlan", master="", linkInContainer=True, ipam={}).add()
    assert container.path in caught.value.details
    container.run("ip addr add 10.4.0.1/24 dev nic && ip route add default via 10.4.0.2")
    runner = attachment("macvlan", master="", linkInContainer=True, ipam={})
    runner.add()
    assert link(container)["link"] == "nic"
    runner.check()


def test_del_succeeds_without_a_default_route(attachment: CreateRunner, host: Host, container: Container) -> None:
    create_default_routes(host, "4 default via 10.2.0.2")
    runner = attachment("macvlan", master="")
    runner.add()
    host.run("ip route del default")
    runner.delete()
    assert "eth0" not in container.run("ip -br link")
