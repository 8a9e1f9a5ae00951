"""ARP probes: detect that another host has an IPv4 address before an interface gets it (RFC 5227 section 2.1.1).

The kernel receives the answer and stores it in a neighbour entry that is created for this purpose. A second packet
socket would take 4 to 8 ms to close. The kernel's own ARP requests would have another address of the namespace as their
sender address, which a probe must not have.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from pycni.kernel.link.datagrams import DatagramSocket
from pycni.kernel.link.link import Link
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError

_PROBE = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4, _REQUEST = 1, 0x0800, 1
_NO_MAC = bytes(6)


@contextmanager
def arp_probe(link: Link, datagrams: DatagramSocket, address: IPv4Address) -> Iterator[Callable[[], str | None]]:
    """Send an ARP probe for the address over the socket of the link.

    Yield a function that returns the MAC of the host that has answered, or None. Raises OSError if sending fails.
    """
    creation = _neighbour_request(link, address, rtnetlink.NEWNEIGH, rtnetlink.CREATE | rtnetlink.REPLACE)
    link.netns.netlink.outcomes(creation)  # may fail if the neighbour table is full: then no answer is seen
    try:
        hardware = bytes.fromhex(link.mac.replace(":", ""))
        fields = (_ETHERNET, _IPV4, len(hardware), len(address.packed), _REQUEST)
        datagrams.send_arp(_PROBE.pack(*fields, hardware, bytes(4), _NO_MAC, address.packed))
        yield lambda: _neighbour(link, address)
    finally:
        link.netns.netlink.outcomes(_neighbour_request(link, address, rtnetlink.DELNEIGH))


def _neighbour(link: Link, address: IPv4Address) -> str | None:
    (outcome,) = link.netns.netlink.outcomes(_neighbour_request(link, address, rtnetlink.GETNEIGH))
    if isinstance(outcome, NetlinkError) or not outcome:
        return None
    mac = outcome[0].get_attr("NDA_LLADDR")
    return str(mac) if mac not in (None, link.mac) else None


def _neighbour_request(link: Link, address: IPv4Address, kind: int, flags: int = 0) -> Message:
    fields = {"family": socket.AF_INET, "ifindex": link.index}
    return Message(kind, flags | rtnetlink.ACK, fields, [("NDA_DST", str(address))])
