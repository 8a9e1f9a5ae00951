"""vlan: its number and its master."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner

Attached = Callable[..., PluginRunner]


@pytest.mark.needs_kernel("vlan")
def test_the_container_is_in_the_vlan_and_in_no_other(attachment: Attached, container: Container) -> None:
    runtime = attachment("vlan")
    runtime.add()
    (made,) = container.json("ip -j -d link show dev eth0")
    assert made["linkinfo"]["info_data"] | {"protocol": "802.1Q", "id": 100} == made["linkinfo"]["info_data"]
    assert container.pings("10.1.0.1")
    runtime.delete()
    runtime = attachment("vlan", vlanId=101)
    runtime.add()
    assert not container.pings("10.1.0.1")
    runtime.config["vlanId"] = 100
    with pytest.raises(CniError, match="eth0 should have vlan 100, but has 101"):
        runtime.check()


@pytest.mark.needs_kernel("vlan")
def test_vlan_0_is_what_no_vlan_is_named_for(attachment: Attached, container: Container) -> None:
    runtime = attachment("vlan")
    del runtime.config["vlanId"]
    runtime.add()
    (made,) = container.json("ip -j -d link show dev eth0")
    assert made["linkinfo"]["info_data"]["id"] == 0
    runtime.check()


@pytest.mark.needs_kernel("vlan")
def test_a_master_that_is_down_is_named(attachment: Attached, host: Host, container: Container) -> None:
    runtime = attachment("vlan")
    host.run("ip link set eth0 down")
    with pytest.raises(CniError, match='master "eth0" is down') as caught:
        runtime.add()
    assert "ip link set eth0 up" in caught.value.details
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.needs_kernel("vlan")
def test_a_vlan_of_a_master_belongs_to_one_container(attachment: Attached, containers: list[Container]) -> None:
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
def test_a_wrong_configuration_is_named(container: Container, config: dict[str, Any], message: str) -> None:
    runtime = PluginRunner("vlan", container, **{"master": "lo", "ipam": {"type": "static"}, **config})
    with pytest.raises(CniError, match=message) as caught:
        runtime.add()
    assert caught.value.code == 7
    runtime.delete()
