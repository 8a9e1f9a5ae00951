"""ipvlan: modes, MTU, and master and addresses from prevResult."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner

CreateRunner = Callable[..., PluginRunner]
PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}],
    "ips": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::7/64"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.0.53"]},
}


@pytest.mark.needs_kernel("ipvlan")
@pytest.mark.parametrize("mode", ["", "l3", "l3s"])
def test_mode_is_set_and_checked(attachment: CreateRunner, host: Host, container: Container, mode: str) -> None:
    runner = attachment("ipvlan", mode=mode)
    runner.add()
    (link,) = container.json("ip -j -d link show dev eth0")
    (master,) = host.json("ip -j link show dev eth0")
    assert link["linkinfo"]["info_data"]["mode"] == (mode or "l2")
    assert link["address"] == master["address"]
    runner.check()
    runner.config["mode"] = "l3" if mode != "l3" else "l2"
    with pytest.raises(CniError, match=f"eth0 should have mode .*, but has {mode or 'l2'}"):
        runner.check()


@pytest.mark.needs_kernel("ipvlan")
def test_master_and_addresses_can_come_from_prev_result(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("ipvlan", master="", ipam={})
    runner.previous = PREVIOUS
    result = runner.add()
    assert [(link["name"], link["sandbox"]) for link in result["interfaces"]] == [("eth0", container.path)]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("10.1.0.7/24", 0), ("fd00:1::7/64", 0)]
    assert result["routes"] == PREVIOUS["routes"]
    assert result["dns"] == PREVIOUS["dns"]
    assert container.pings("10.1.0.1")
    runner.check()
    runner.delete()
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.parametrize("interfaces", [[], [{"name": ""}], [{"name": "eth0"}, {"name": "eth1"}]])
def test_prev_result_must_name_exactly_one_interface(container: Container, interfaces: list[dict[str, str]]) -> None:
    runner = PluginRunner("ipvlan", container, previous={**PREVIOUS, "interfaces": interfaces})
    with pytest.raises(CniError, match="chained master failure. PrevResult lacks a single named interface"):
        runner.add()
    runner.delete()


@pytest.mark.needs_kernel("ipvlan")
@pytest.mark.parametrize("previous", [None, {**PREVIOUS, "ips": []}])
def test_add_without_ipam_and_addresses_fails_and_creates_no_link(
    attachment: CreateRunner, container: Container, previous: dict[str, Any] | None
) -> None:
    runner = attachment("ipvlan", ipam={})
    runner.previous = previous
    with pytest.raises(CniError, match="ipam.type is missing") as caught:
        runner.add()
    assert caught.value.code == 7
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.needs_kernel("ipvlan")
@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_mtu_can_be_larger_than_the_masters(attachment: CreateRunner, container: Container, mode: str) -> None:
    runner = attachment("ipvlan", mode=mode, mtu=9000)
    runner.add()
    assert "mtu 9000" in container.run("ip link show dev eth0")
    runner.check()


@pytest.mark.needs_kernel("ipvlan")
def test_error_of_the_kernel_is_reported_for_a_link_in_the_container(
    attachment: CreateRunner, container: Container
) -> None:
    """Go: the error is that the link, which was never created, cannot be renamed."""
    container.run("ip link add nic type dummy && ip link set nic up")
    container.run("ip link add mac0 link nic type macvlan")
    with pytest.raises(CniError, match="cannot create ipvlan eth0 on nic: device or resource busy"):
        attachment("ipvlan", master="nic", linkInContainer=True).add()


def test_unknown_mode_is_refused(container: Container) -> None:
    with pytest.raises(CniError, match='mode: .*"l4"') as caught:
        PluginRunner("ipvlan", container, mode="l4").add()
    assert caught.value.code == 7
