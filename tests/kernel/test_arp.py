"""ARP probes: the holder of an address is found, and no neighbour entry is left."""

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from pycni.kernel.link.arp import arp_probe
from pycni.kernel.link.datagrams import DatagramSocket
from pycni.kernel.link.link import Link
from pycni.kernel.namespace import Namespace
from pycni.testing import Container, Host, wait_for

USED, FREE = IPv4Address("10.1.0.1"), IPv4Address("10.1.0.9")


@pytest.fixture
def link(host: Host, container: Container) -> Iterator[Link]:
    """A veth pair to the host, 10.1.0.1. The container's end has no address, another link of the container has one."""
    host.run(f"ip link add v0 type veth peer name eth0 netns {container.path} && ip addr add 10.1.0.1/24 dev v0")
    container.run("ip link add eth1 type veth peer name p1 && ip addr add 10.9.0.1/24 dev eth1 && ip link set eth1 up")
    host.run("ip link set v0 up")
    container.run("ip link set eth0 up")
    wait_for(lambda: "state UP" in container.run("ip link show eth0"), "eth0")
    wait_for(lambda: "state UP" in host.run("ip link show v0"), "v0")
    namespace = Namespace.at(container.path)
    yield namespace.link("eth0")
    namespace.close()


def test_holder_of_an_address_is_found(host: Host, container: Container, link: Link) -> None:
    (host_link,) = host.json("ip -j link show v0")
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams:
        with arp_probe(link, datagrams, USED) as holder:
            wait_for(lambda: holder() == host_link["address"], "the answer")
        with arp_probe(link, datagrams, FREE) as holder, arp_probe(link, datagrams, USED) as other:
            wait_for(other, "a later answer")
            assert holder() is None
    assert "10." not in container.run("ip -4 neigh show nud all dev eth0")


def test_probe_contains_no_sender_address(host: Host, container: Container, link: Link) -> None:
    """A receiver would store it and send packets for its real holder to the prober."""
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams, arp_probe(link, datagrams, USED) as holder:
        wait_for(holder, "the answer")
    assert "10." not in host.run("ip -4 neigh show nud all dev v0")


def test_probe_ignores_existing_neighbour_entries(container: Container, link: Link) -> None:
    """They may be stale."""
    container.run("ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable")
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams, arp_probe(link, datagrams, FREE) as holder:
        with arp_probe(link, datagrams, USED) as other:
            wait_for(other, "a later answer")
        assert holder() is None
