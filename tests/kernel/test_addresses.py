"""Waiting until addresses are usable."""

from collections.abc import Iterator
from ipaddress import ip_interface
from threading import Thread

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.link import address_readiness
from pycni.kernel.link.address_readiness import wait_for_multicast_groups
from pycni.kernel.namespace import Namespace
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner

ADDRESS = ip_interface("fd00:1::ab:cdef/64")
GROUP = "ff02::1:ffab:cdef"


@pytest.fixture
def namespace(host: Host) -> Iterator[Namespace]:
    """The host with a veth pair, v0 and v1."""
    host.run("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up")
    namespace = Namespace.own(Journal())
    yield namespace
    namespace.close()


def test_wait_ends_when_the_multicast_group_of_the_address_is_joined(host: Host, namespace: Namespace) -> None:
    """A neighbour solicitation that arrives earlier is not received, and is repeated after a second."""
    link = namespace.link("v0")
    waiting = Thread(target=wait_for_multicast_groups, args=(link, [ADDRESS]))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    host.run(f"ip addr add {ADDRESS} dev v0 nodad")
    waiting.join()
    assert GROUP in host.run("ip maddr show dev v0")


def test_multicast_group_that_is_not_joined_in_time_is_an_error(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_readiness, "_TIMEOUT", 0.0)
    with pytest.raises(CniError, match="v0 did not join the multicast groups of its addresses"):
        wait_for_multicast_groups(namespace.link("v0"), [ADDRESS])


def test_ipv4_addresses_need_no_wait(namespace: Namespace) -> None:
    wait_for_multicast_groups(namespace.link("v0"), [ip_interface("10.1.0.2/24")])


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_both_ends_have_joined_the_groups_when_add_returns(
    host: Host, containers: list[Container], plugin: str
) -> None:
    ipam = {"type": "host-local", "subnet": "fd00:1::/64"}
    config = {"bridge": "br0", "isGateway": True} if plugin == "bridge" else {}
    for container in containers:
        result = PluginRunner(plugin, container, ipam=ipam, **config).add()
        last = result["ips"][0]["address"].partition("/")[0].rpartition(":")[2]
        assert f"ff02::1:ff00:{last}\n" in container.run("ip maddr show dev eth0")
        assert "ff02::1:ff00:1\n" in host.run(f"ip maddr show dev {result['interfaces'][0]['name']}")
        assert "state UP" in host.run(f"ip link show {result['interfaces'][0]['name']}")
