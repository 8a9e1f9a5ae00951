"""ARP probes: who has an address is known at once, and nothing of the question stays."""

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from pycni.kernel.link.arp import probing
from pycni.kernel.link.datagrams import DatagramSocket
from pycni.kernel.link.link import Link
from pycni.kernel.namespace import Namespace
from pycni.testing import Container, Host, wait_for

THEIRS, FREE = IPv4Address("10.1.0.1"), IPv4Address("10.1.0.9")


@pytest.fixture
def link(host: Host, container: Container) -> Iterator[Link]:
    """A cable to the host (10.1.0.1), without an address of its own; the container has one elsewhere."""
    host.run(f"ip link add v0 type veth peer name eth0 netns {container.path} && ip addr add 10.1.0.1/24 dev v0")
    container.run("ip link add eth1 type veth peer name p1 && ip addr add 10.9.0.1/24 dev eth1 && ip link set eth1 up")
    host.run("ip link set v0 up")
    container.run("ip link set eth0 up")
    wait_for(lambda: "state UP" in container.run("ip link show eth0"), "eth0")
    wait_for(lambda: "state UP" in host.run("ip link show v0"), "v0")
    place = Namespace.at(container.path)
    yield place.link("eth0")
    place.close()


def test_who_has_the_address_answers(host: Host, container: Container, link: Link) -> None:
    (theirs,) = host.json("ip -j link show v0")
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams:
        with probing(link, datagrams, THEIRS) as holder:
            wait_for(lambda: holder() == theirs["address"], "the answer")
        with probing(link, datagrams, FREE) as holder, probing(link, datagrams, THEIRS) as other:
            wait_for(other, "an answer that comes after the one that never does")
            assert holder() is None
    assert "10." not in container.run("ip -4 neigh show nud all dev eth0")


def test_the_asker_names_no_address(host: Host, container: Container, link: Link) -> None:
    """Whoever hears of one would send there what is for somebody else."""
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams, probing(link, datagrams, THEIRS) as holder:
        wait_for(holder, "the answer")
    assert "10." not in host.run("ip -4 neigh show nud all dev v0")


def test_a_neighbour_that_is_known_already_is_asked_anew(container: Container, link: Link) -> None:
    """Somebody else may have the address by now, or nobody."""
    container.run("ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable")
    with closing(DatagramSocket(link.netns, "eth0", 68)) as datagrams, probing(link, datagrams, FREE) as holder:
        with probing(link, datagrams, THEIRS) as other:
            wait_for(other, "an answer that comes after the one that never does")
        assert holder() is None
