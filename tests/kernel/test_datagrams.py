"""UDP over a packet socket: compatible with the kernel's UDP, and isolated from it."""

import os
import socket
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from pycni.kernel.link.datagrams import DatagramSocket
from pycni.testing import Container, Host, wait_for
from pycni.testing.topology import Netns


@pytest.fixture
def link(host: Host, container: Container) -> None:
    """A veth pair from the host, 10.1.0.1, to the container, which has no address."""
    host.run(f"ip link add v0 type veth peer name eth0 netns {container.path} && ip addr add 10.1.0.1/24 dev v0")
    host.run("ip link set v0 up")
    container.run("ip link set eth0 up")
    wait_for(
        lambda: "state UP" in host.run("ip link show v0") and "state UP" in container.run("ip link show eth0"), "v0"
    )


def udp_socket(netns: Netns, port: int) -> socket.socket:
    with netns.netns.enter():
        socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    socket_.settimeout(5)
    socket_.bind(("0.0.0.0", port))
    return socket_


def datagram_socket(container: Container) -> "closing[DatagramSocket]":
    return closing(DatagramSocket(container.netns, "eth0", 68))


@pytest.mark.parametrize("payload", [b"", b"odd", b"even", os.urandom(1400)])
def test_kernel_accepts_sent_datagrams(host: Host, container: Container, link: None, payload: bytes) -> None:
    """It does so only if the checksums are correct."""
    with udp_socket(host, 67) as server, datagram_socket(container) as datagrams:
        datagrams.send(payload, source=IPv4Address("0.0.0.0"), to=IPv4Address("255.255.255.255"), port=67)
        assert server.recvfrom(2000) == (payload, ("0.0.0.0", 68))


def test_received_datagram_has_source_address_and_mac(host: Host, container: Container, link: None) -> None:
    (server_link,) = host.json("ip -j link show v0")
    with udp_socket(host, 67) as server, datagram_socket(container) as datagrams:
        (own,) = container.json("ip -j link show eth0")
        host.run(f"ip neigh replace 10.1.0.7 lladdr {own['address']} dev v0")
        server.sendto(b"elsewhere", ("10.1.0.7", 69))
        server.sendto(b"here", ("10.1.0.7", 68))
        datagrams.socket.settimeout(5)
        datagram = datagrams.decode(*datagrams.socket.recvfrom(2000))
        assert datagram is not None
        assert (datagram.payload, str(datagram.source)) == (b"here", "10.1.0.1")
        assert datagram.source_mac == server_link["address"]


def test_no_icmp_error_is_sent_for_a_received_datagram(host: Host, container: Container, link: None) -> None:
    container.run("ip addr add 10.1.0.2/24 dev eth0")
    with udp_socket(host, 67) as server, datagram_socket(container):
        server.connect(("10.1.0.2", 68))
        server.send(b"an answer")
        with udp_socket(container, 69) as other:
            server.connect(("10.1.0.2", 69))
            server.send(b"later")
            assert other.recv(10) == b"later"  # the first datagram was received too, without an error


@pytest.mark.parametrize("packet", [b"", b"E", b"\x45" + bytes(19), b"\x65" + bytes(60), b"\x4f" + bytes(30)])
def test_malformed_packets_are_decoded_to_none(packet: bytes) -> None:
    assert DatagramSocket.decode(packet, ("eth0", 0x0800, 0, 1, bytes(6))) is None
