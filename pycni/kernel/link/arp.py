"""Whether somebody else has an IPv4 address that an interface is about to get: an ARP probe (RFC 5227 section 2.1.1).

Its answer is caught by the kernel, in an entry of the neighbour table that is made for it: a second packet socket would
cost 4 to 8 ms to close. The kernel's own probes would name another address of the namespace as their sender.
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
_NOBODY = bytes(6)


@contextmanager
def probing(link: Link, datagrams: DatagramSocket, address: IPv4Address) -> Iterator[Callable[[], str | None]]:
    """Ask once, by the link's socket, who has the address. What is yielded tells the MAC that has answered so far.

    Raises OSError if the link cannot send.
    """
    creation = _about(link, address, rtnetlink.NEWNEIGH, rtnetlink.CREATE | rtnetlink.REPLACE)
    link.netns.netlink.outcomes(creation)  # a table that is full catches nothing
    try:
        hardware = bytes.fromhex(link.mac.replace(":", ""))
        fields = (_ETHERNET, _IPV4, len(hardware), len(address.packed), _REQUEST)
        datagrams.send_arp(_PROBE.pack(*fields, hardware, bytes(4), _NOBODY, address.packed))
        yield lambda: _neighbour(link, address)
    finally:
        link.netns.netlink.outcomes(_about(link, address, rtnetlink.DELNEIGH))


def _neighbour(link: Link, address: IPv4Address) -> str | None:
    (outcome,) = link.netns.netlink.outcomes(_about(link, address, rtnetlink.GETNEIGH))
    if isinstance(outcome, NetlinkError) or not outcome:
        return None
    mac = outcome[0].get_attr("NDA_LLADDR")
    return str(mac) if mac not in (None, link.mac) else None


def _about(link: Link, address: IPv4Address, kind: int, flags: int = 0) -> Message:
    fields = {"family": socket.AF_INET, "ifindex": link.index}
    return Message(kind, flags | rtnetlink.ACK, fields, [("NDA_DST", str(address))])
