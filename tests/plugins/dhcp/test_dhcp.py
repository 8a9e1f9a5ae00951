"""dhcp: leases of real servers, by a real keeper."""

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container

from .conftest import BridgeOf, Keeper, Lan, address_of


def test_a_container_gets_an_address_of_isc(lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container) -> None:
    lan.isc()
    runtime = bridge()
    result = runtime.add()
    (ip,) = result["ips"]
    assert ip == {"address": ip["address"], "gateway": "10.55.0.1", "interface": 2}
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.55.0.1"}]
    assert address_of(container) == [ip["address"]]
    assert container.pings("10.55.0.1")
    runtime.check()
    runtime.delete()
    assert keeper.records() == []
    assert "DHCPRELEASE" in lan.said()
