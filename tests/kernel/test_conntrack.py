"""Deletion of conntrack entries of UDP flows."""

import socket
from ipaddress import ip_address

import pytest

from pycni.kernel.firewall import conntrack
from pycni.kernel.firewall.port_mappings import UdpPort
from pycni.kernel.link import routes
from pycni.testing import Host

FLOWS = {("10.1.0.1", 53), ("127.0.0.1", 53), ("10.1.0.1", 54), ("10.1.0.7", 53), ("192.0.2.9", 53), ("fd00:1::1", 53)}


@pytest.fixture(autouse=True)
def flows(host: Host) -> None:
    host.run("ip link add br0 type bridge && ip addr add 10.1.0.1/24 dev br0 && ip addr add fd00:1::1/64 dev br0 nodad")
    host.run("ip link set br0 up && ip route add default via 10.1.0.2")
    host.run("nft 'add table inet t; add chain inet t c { type filter hook output priority 0; }'")
    host.run("nft 'add rule inet t c ct state new accept'")
    for address, port in FLOWS:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (address, port))
    assert udp_flows(host) == FLOWS


def udp_flows(host: Host) -> set[tuple[str, int]]:
    found = set()
    for line in host.run("grep udp /proc/thread-self/net/nf_conntrack").splitlines():
        fields = dict(reversed([word.split("=") for word in line.split() if "=" in word]))  # the original direction
        found.add((str(ip_address(fields["dst"])), int(fields["dport"])))
    return found


@pytest.mark.parametrize("flows_has_few_flows", [True, False], ids=["few flows", "many flows"])
@pytest.mark.parametrize(
    ("ports", "deleted"),
    [
        ([UdpPort(4, 53, None)], {("10.1.0.1", 53), ("127.0.0.1", 53)}),
        ([UdpPort(4, 53, ip_address("10.1.0.1"))], {("10.1.0.1", 53)}),
        ([UdpPort(6, 53, None), UdpPort(4, 54, None)], {("fd00:1::1", 53), ("10.1.0.1", 54)}),
        (
            [UdpPort(4, 53, None), UdpPort(4, 54, ip_address("10.1.0.1")), UdpPort(4, 55, None)],
            {("10.1.0.1", 53), ("127.0.0.1", 53), ("10.1.0.1", 54)},
        ),
        ([UdpPort(4, 53, ip_address("10.1.0.7")), UdpPort(4, 54, ip_address("127.0.0.1"))], {("10.1.0.7", 53)}),
        ([UdpPort(4, 55, None)], set()),
        ([], set()),
    ],
)
def test_only_flows_to_the_ports_on_addresses_of_the_host_are_deleted(
    host: Host,
    ports: list[UdpPort],
    deleted: set[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    flows_has_few_flows: bool,
) -> None:
    monkeypatch.setattr(conntrack, "_has_few_flows", lambda *_: flows_has_few_flows)
    conntrack.delete_entries(host.netns, ports)
    assert udp_flows(host) == FLOWS - deleted


def test_has_few_flows_compares_the_number_of_flows_with_the_limit(host: Host) -> None:
    assert conntrack._has_few_flows(host.netns, 2)
    assert not conntrack._has_few_flows(host.netns, 1)


def test_interface_to_an_address(host: Host) -> None:
    assert routes.interface_to(host.netns, ip_address("10.1.0.7")) == "br0"
    assert routes.interface_to(host.netns, ip_address("fd00:1::7")) == "br0"
    assert routes.interface_to(host.netns, ip_address("10.1.0.1")) is None  # an address of the host
    assert routes.interface_to(host.netns, ip_address("2001:db8::1")) is None
