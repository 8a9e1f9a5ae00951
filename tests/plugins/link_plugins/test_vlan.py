"""vlan: VLAN ID and master."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner

CreateRunner = Callable[..., PluginRunner]


@pytest.mark.needs_kernel("vlan")
def test_container_is_connected_to_its_vlan_only(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("vlan")
    runner.add()
    (link,) = container.json("ip -j -d link show dev eth0")
    assert link["linkinfo"]["info_data"] | {"protocol": "802.1Q", "id": 100} == link["linkinfo"]["info_data"]
    assert container.pings("10.1.0.1")
    runner.delete()
    runner = attachment("vlan", vlanId=101)
    runner.add()
    assert not container.pings("10.1.0.1")
    runner.config["vlanId"] = 100
    with pytest.raises(CniError, match="eth0 should have vlan 100, but has 101"):
        runner.check()


@pytest.mark.needs_kernel("vlan")
def test_default_vlan_id_is_0(attachment: CreateRunner, container: Container) -> None:
    runner = attachment("vlan")
    del runner.config["vlanId"]
    runner.add()
    (link,) = container.json("ip -j -d link show dev eth0")
    assert link["linkinfo"]["info_data"]["id"] == 0
    runner.check()


@pytest.mark.needs_kernel("vlan")
def test_error_names_a_master_that_is_down(attachment: CreateRunner, host: Host, container: Container) -> None:
    runner = attachment("vlan")
    host.run("ip link set eth0 down")
    with pytest.raises(CniError, match='master "eth0" is down') as caught:
        runner.add()
    assert "ip link set eth0 up" in caught.value.details
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.needs_kernel("vlan")
def test_vlan_of_a_master_can_be_used_by_one_container_only(
    attachment: CreateRunner, containers: list[Container]
) -> None:
    attachment("vlan", containers[0]).add()
    with pytest.raises(CniError, match="cannot create vlan eth0 on eth0: .*exists"):
        attachment("vlan", containers[1]).add()
    attachment("vlan", containers[2], vlanId=101).add()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vlanId": 4095}, r"vlanId: invalid VLAN ID 4095 \(must be between 0 and 4094\)"),
        ({"vlanId": -1}, "invalid VLAN ID -1"),
        ({"vlanId": "100"}, 'vlanId: .*integer, not "100"'),
        ({"master": ""}, '"master" field is required'),
        ({"ipam": {}}, "ipam.type is missing: a vlan interface gets its addresses from IPAM"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option(
    container: Container, config: dict[str, Any], message: str
) -> None:
    runner = PluginRunner("vlan", container, **{"master": "lo", "ipam": {"type": "static"}, **config})
    with pytest.raises(CniError, match=message) as caught:
        runner.add()
    assert caught.value.code == 7
    runner.delete()
