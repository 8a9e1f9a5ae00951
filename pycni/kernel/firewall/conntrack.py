"""Connection tracking: flows that the kernel remembers, and makes it forget.

A UDP flow that began before its port was published, or while it led to another container, would go on as it began for
as long as packets come: a black hole. (TCP notices by itself.)
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address

from pycni.kernel.firewall.nfnetlink import (
    ACK,
    BODY,
    CONNTRACK,
    DUMP,
    NfnetlinkSocket,
    attribute,
    attributes,
    connected,
)
from pycni.kernel.firewall.port_mappings import UdpPort
from pycni.kernel.link import routes
from pycni.kernel.link.address_requests import FAMILIES
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import Address

_GET, _DELETE = 1, 2
_COUNT = "netfilter/nf_conntrack_count"
_FLOWS_PER_QUESTION = 1000  # how many are read in the time that one question takes the kernel
_UDP = 17
# Attributes, linux/netfilter/nfnetlink_conntrack.h.
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS = 1, 25, 1
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_DESTINATION = {4: 2, 6: 4}  # CTA_IP_V4_DST, CTA_IP_V6_DST
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
# What of the original direction the kernel shall compare (since Linux 5.8; older ones list every flow).
_TO_ADDRESS, _PROTOCOL, _TO_PORT = 1 << 1, 1 << 3, 1 << 5


def forget(netns: NetnsHandle, ports: Iterable[UdpPort]) -> None:
    """Forget the UDP flows to these ports of the host's own addresses, and no others."""
    wanted = list(dict.fromkeys(ports))
    for version in sorted({port.version for port in wanted}):
        of_family = [port for port in wanted if port.version == version]
        together = len(of_family) > 1 and _are_few(netns, len(of_family))
        for some in [of_family] if together else [[port] for port in of_family]:
            _forget(netns, version, some)


def _are_few(netns: NetnsHandle, ports: int) -> bool:
    """Whether it takes less time to look at all flows of the namespace than to look for those to each of the ports.

    For each question the kernel walks through a table that all namespaces share, which takes it 10 ms.
    """
    return int(sysctl.read(netns, _COUNT) or 0) < _FLOWS_PER_QUESTION * (ports - 1)


def _forget(netns: NetnsHandle, version: int, ports: Sequence[UdpPort]) -> None:
    socket = connected(netns)
    here = {port.port for port in ports if port.address is None}
    there = {(port.port, port.address) for port in ports}
    for flow, address, number in _flows(socket, version, ports[0] if len(ports) == 1 else None):
        if (number, address) in there or (number in here and routes.is_local(netns, address)):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                socket.ask(CONNTRACK, _DELETE, FAMILIES[version], attribute(_TUPLE_ORIG, flow, nested=True), flags=ACK)


def _flows(socket: NfnetlinkSocket, version: int, only: UdpPort | None) -> Iterator[tuple[bytes, Address, int]]:
    """UDP flows: the original direction as the kernel wrote it, and the address and port that it leads to.

    Where there is a filter in the kernel, `only` those to one port.
    """
    protocol, ip, flags = attribute(_PROTO_NUM, bytes([_UDP])), b"", _PROTOCOL
    if only is not None:
        protocol += attribute(_PROTO_DST_PORT, only.port.to_bytes(2, "big"))
        flags |= _TO_PORT
        if only.address is not None:
            ip = attribute(_DESTINATION[version], only.address.packed)
            flags |= _TO_ADDRESS
    original = attribute(_TUPLE_IP, ip, nested=True) + attribute(_TUPLE_PROTO, protocol, nested=True)
    compared = attribute(_FILTER_ORIG_FLAGS, flags.to_bytes(4, sys.byteorder))
    question = attribute(_TUPLE_ORIG, original, nested=True) + attribute(_FILTER, compared, nested=True)
    for answer in socket.ask(CONNTRACK, _GET, FAMILIES[version], question, flags=DUMP):
        flow = dict(attributes(answer[BODY:]))[_TUPLE_ORIG]
        parts = dict(attributes(flow))
        of = dict(attributes(parts[_TUPLE_PROTO]))
        if of[_PROTO_NUM] == bytes([_UDP]):
            address = ip_address(dict(attributes(parts[_TUPLE_IP]))[_DESTINATION[version]])
            yield flow, address, int.from_bytes(of[_PROTO_DST_PORT], "big")
