"""Connection tracking: deletes the entries of UDP flows to host ports.

The kernel translates a UDP flow as it was when the flow began, for as long as packets arrive. A flow that began before
its port was mapped, or while it was mapped to another container, would never reach the new one. TCP connections are not
affected: the client notices and opens a new one.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address

from pycni.kernel.firewall.families import by_version
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
_COUNT_SETTING = "netfilter/nf_conntrack_count"
_FLOWS_PER_DUMP = 1000  # flows that can be read in the time that one dump request costs
_UDP = 17
# Numbers of attributes, from linux/netfilter/nfnetlink_conntrack.h.
_TUPLE_ORIG, _FILTER, _FILTER_ORIG_FLAGS = 1, 25, 1
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_DESTINATION = {4: 2, 6: 4}  # CTA_IP_V4_DST, CTA_IP_V6_DST
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
# Fields of the original direction that the kernel compares (since Linux 5.8; older kernels list every flow).
_FILTER_DESTINATION, _FILTER_PROTOCOL, _FILTER_PORT = 1 << 1, 1 << 3, 1 << 5


def delete_entries(netns: NetnsHandle, ports: Iterable[UdpPort]) -> None:
    """Delete the entries of UDP flows to these ports of the host's own addresses. Raises OSError."""
    for version, wanted in sorted(by_version(dict.fromkeys(ports)).items()):
        together = len(wanted) > 1 and _has_few_flows(netns, len(wanted))
        for some in [wanted] if together else [[port] for port in wanted]:
            _delete(netns, version, some)


def _has_few_flows(netns: NetnsHandle, ports: int) -> bool:
    """Return whether one dump of all flows of the namespace is faster than a filtered dump for each port.

    For each dump, the kernel walks a table that all namespaces share. That takes 10 ms.
    """
    return int(sysctl.read(netns, _COUNT_SETTING) or 0) < _FLOWS_PER_DUMP * (ports - 1)


def _delete(netns: NetnsHandle, version: int, ports: Sequence[UdpPort]) -> None:
    socket = connected(netns)
    any_address = {port.port for port in ports if port.address is None}
    one_address = {(port.port, port.address) for port in ports}
    for flow, address, number in _flows(socket, version, ports[0] if len(ports) == 1 else None):
        if (number, address) in one_address or (number in any_address and routes.is_local(netns, address)):
            with suppress(FileNotFoundError):  # the flow has ended meanwhile
                socket.ask(CONNTRACK, _DELETE, FAMILIES[version], attribute(_TUPLE_ORIG, flow, nested=True), flags=ACK)


def _flows(socket: NfnetlinkSocket, version: int, only: UdpPort | None) -> Iterator[tuple[bytes, Address, int]]:
    """Yield UDP flows: the original direction as the kernel encodes it, and its destination address and port.

    only: a port to filter by, if the kernel supports filters.
    """
    protocol, ip, flags = attribute(_PROTO_NUM, bytes([_UDP])), b"", _FILTER_PROTOCOL
    if only is not None:
        protocol += attribute(_PROTO_DST_PORT, only.port.to_bytes(2, "big"))
        flags |= _FILTER_PORT
        if only.address is not None:
            ip = attribute(_DESTINATION[version], only.address.packed)
            flags |= _FILTER_DESTINATION
    original = attribute(_TUPLE_IP, ip, nested=True) + attribute(_TUPLE_PROTO, protocol, nested=True)
    compared = attribute(_FILTER_ORIG_FLAGS, flags.to_bytes(4, sys.byteorder))
    request = attribute(_TUPLE_ORIG, original, nested=True) + attribute(_FILTER, compared, nested=True)
    for answer in socket.ask(CONNTRACK, _GET, FAMILIES[version], request, flags=DUMP):
        flow = dict(attributes(answer[BODY:]))[_TUPLE_ORIG]
        parts = dict(attributes(flow))
        layer4 = dict(attributes(parts[_TUPLE_PROTO]))
        if layer4[_PROTO_NUM] == bytes([_UDP]):
            address = ip_address(dict(attributes(parts[_TUPLE_IP]))[_DESTINATION[version]])
            yield flow, address, int.from_bytes(layer4[_PROTO_DST_PORT], "big")
