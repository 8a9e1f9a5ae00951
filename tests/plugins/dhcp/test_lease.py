"""Lease times and client IDs."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from pycni_plugins.dhcp.client import DhcpClient
from pycni_plugins.dhcp.lease import DhcpLease
from pycni_plugins.dhcp.message import Message, MessageType

MAC = "02:00:00:00:00:07"
MASK, SERVER = IPv4Address("255.255.255.0").packed, IPv4Address("10.55.0.1").packed


def lease(**seconds: int) -> DhcpLease:
    """Return a lease with these times, obtained at time 1000."""
    codes = {"duration": 51, "renew": 58, "rebind": 59}
    times = {codes[name]: value.to_bytes(4, "big") for name, value in seconds.items()}
    ack = Message(MessageType.ACK, 1, MAC, yiaddr=IPv4Address("10.55.0.7"), options={1: MASK, 54: SERVER, **times})
    return DhcpLease.of(ack, MAC, 1000.0)


@pytest.mark.parametrize(
    ("seconds", "renew", "rebind", "end"),
    [
        ({"duration": 80}, 40, 70, 80),
        ({"duration": 80, "renew": 10, "rebind": 20}, 10, 20, 80),
        ({"duration": 80, "renew": 75}, 40, 70, 80),
        ({"duration": 80, "rebind": 90}, 40, 70, 80),
        ({}, 1800, 3150, 3600),
        ({"duration": 0}, 1800, 3150, 3600),
        ({"duration": 0xFFFFFFFF}, float("inf"), float("inf"), float("inf")),
    ],
)
def test_renewal_rebinding_and_expiry_times(seconds: dict[str, int], renew: float, rebind: float, end: float) -> None:
    made = lease(**seconds)
    assert [made.renew_at - 1000, made.rebind_at - 1000, made.expires_at - 1000] == [renew, rebind, end]


@pytest.mark.parametrize(
    "options", [{1: MASK}, {54: SERVER}, {54: SERVER, 1: b"\xff\x00\xff\x00"}, {54: SERVER, 1: b""}]
)
def test_ack_without_a_server_or_a_valid_mask_is_refused(options: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match=r"not found in DHCPACK|mask"):
        DhcpLease.of(Message(MessageType.ACK, 1, MAC, yiaddr=IPv4Address("10.55.0.7"), options=options), MAC, 0.0)


@pytest.mark.parametrize(("address", "mask"), [("0.0.0.0", 24), ("127.0.0.5", 8), ("224.0.0.9", 24), ("10.1.0.2", 0)])
def test_ack_with_an_address_unusable_for_hosts_is_refused(address: str, mask: int) -> None:
    netmask = IPv4Network(f"0.0.0.0/{mask}").netmask.packed
    ack = Message(MessageType.ACK, 1, MAC, yiaddr=IPv4Address(address), options={1: netmask, 54: SERVER})
    with pytest.raises(ValueError, match="is not a valid host address"):
        DhcpLease.of(ack, MAC, 0.0)


def test_renewal_does_not_contain_the_requested_address() -> None:
    requesting = client("net").model_copy(update={"provided_options": {50: b"addr", 12: b"web-0"}})
    assert requesting.message(MessageType.DISCOVER, 1, MAC).options[50] == b"addr"
    renewal = requesting.message(MessageType.REQUEST, 1, MAC, ciaddr=IPv4Address("10.55.0.7"))
    assert 50 not in renewal.options
    assert renewal.options[12] == b"web-0"


def test_lease_is_unchanged_after_a_round_trip_through_json() -> None:
    made = lease(duration=80)
    assert DhcpLease.model_validate_json(made.model_dump_json(by_alias=True)) == made
    assert str(made.cidr) == "10.55.0.7/24"


def client(network: str, container_id: str = "c1", ifname: str = "eth0") -> DhcpClient:
    return DhcpClient(
        network=network, container_id=container_id, ifname=ifname, netns="/n", requested_options=(), provided_options={}
    )


def test_long_client_ids_stay_distinct() -> None:
    """Go: client IDs are cut to 254 bytes, so two interfaces of a container can have the same one."""
    assert client("net").id == b"\0c1/net/eth0"
    long = [client("n" * 300, ifname=ifname).id for ifname in ("eth0", "eth1")]
    assert long[0] != long[1]
    assert all(len(one) == 255 for one in long)
    fitting = client("n" * 246).id
    assert fitting == b"\0c1/" + b"n" * 246 + b"/eth0"
    assert len(fitting) == 255
