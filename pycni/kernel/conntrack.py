"""Connection tracking: flows that the kernel remembers, and makes it forget.

A UDP flow that began before its port was published, or while it led to another container, would go on as it began for
as long as packets come: a black hole. (TCP notices by itself.)
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address

from pycni.kernel import routes
from pycni.kernel.addresses import FAMILIES
from pycni.kernel.door import Door
from pycni.kernel.netfilter import (
    ACK,
    BODY,
    CONNTRACK,
    DUMP,
    NetfilterSocket,
    attribute,
    attributes,
    connected,
)
from pycni.kernel.portmappings import UdpPort
from pycni.protocol.address import Address

_GET, _DELETE = 1, 2
_UDP = 17
# Attributes, linux/netfilter/nfnetlink_conntrack.h.
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS = 1, 25, 1
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_DESTINATION = {4: 2, 6: 4}  # CTA_IP_V4_DST, CTA_IP_V6_DST
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
# What of the original direction the kernel shall compare (since Linux 5.8; older ones list every flow).
_TO_ADDRESS, _PROTOCOL, _TO_PORT = 1 << 1, 1 << 3, 1 << 5


def forget(door: Door, ports: Iterable[UdpPort]) -> None:
    """Forget the UDP flows to these ports of the host's own addresses, and no others."""
    wanted = list(dict.fromkeys(ports))
    if not wanted:
        return
    socket = connected(door)
    for port in wanted:
        for flow, destination in _flows(socket, port):
            if port.address is not None or routes.is_local(door, destination):
                _delete(socket, port.version, flow)


def _flows(socket: NetfilterSocket, port: UdpPort) -> Iterator[tuple[bytes, Address]]:
    """The flows to a port: the original direction as the kernel wrote it, and the address that it leads to."""
    wanted = {_PROTO_NUM: bytes([_UDP]), _PROTO_DST_PORT: port.port.to_bytes(2, "big")}
    protocol = b"".join(attribute(kind, value) for kind, value in wanted.items())
    ip = attribute(_DESTINATION[port.version], port.address.packed) if port.address else b""
    flags = _PROTOCOL | _TO_PORT | (_TO_ADDRESS if port.address else 0)
    original = attribute(_TUPLE_IP, ip, nested=True) + attribute(_TUPLE_PROTO, protocol, nested=True)
    compared = attribute(_FILTER_ORIG_FLAGS, flags.to_bytes(4, sys.byteorder))
    question = attribute(_TUPLE_ORIG, original, nested=True) + attribute(_FILTER, compared, nested=True)
    for answer in socket.ask(CONNTRACK, _GET, FAMILIES[port.version], question, flags=DUMP):
        flow = dict(attributes(answer[BODY:]))[_TUPLE_ORIG]
        parts = dict(attributes(flow))
        if not wanted.items() <= dict(attributes(parts[_TUPLE_PROTO])).items():
            continue
        destination = ip_address(dict(attributes(parts[_TUPLE_IP]))[_DESTINATION[port.version]])
        if port.address in (None, destination):
            yield flow, destination


def _delete(socket: NetfilterSocket, version: int, flow: bytes) -> None:
    with suppress(FileNotFoundError):  # it has ended meanwhile
        socket.ask(CONNTRACK, _DELETE, FAMILIES[version], attribute(_TUPLE_ORIG, flow, nested=True), flags=ACK)
