"""rtnetlink requests that add, remove and list addresses."""

import socket
from functools import lru_cache
from ipaddress import IPv4Interface, ip_interface
from typing import Any

from pycni.kernel.link.link import Link
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import Message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import Cidr

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
DAD_FAILED, TENTATIVE = 0x08, 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE
_NODAD, _PERMANENT, _NOPREFIXROUTE = 0x02, 0x80, 0x200  # IFA_F_…


def addition(index: int, cidr: Cidr, *, dad: bool = False, on_link: bool = True) -> Message:
    """Return the request that adds an address to the link with this index.

    Without `dad` there is no duplicate address detection: IPAM has chosen an address that no other host has. Without
    `on_link` the kernel adds no route to the subnet of the address.
    """
    attributes: list[tuple[str, Any]] = [("IFA_LOCAL", str(cidr.ip)), ("IFA_ADDRESS", str(cidr.ip))]
    if isinstance(cidr, IPv4Interface) and cidr.network.prefixlen < 31:
        attributes.append(("IFA_BROADCAST", str(cidr.network.broadcast_address)))
    flags = (_NODAD if cidr.version == 6 and not dad else 0) | (0 if on_link else _NOPREFIXROUTE)
    if flags:
        attributes.append(("IFA_FLAGS", flags))
    return _message(rtnetlink.NEWADDR, rtnetlink.CREATE | rtnetlink.EXCLUSIVE, index, cidr, attributes)


def removal(index: int, cidr: Cidr) -> Message:
    """Return the request that removes an address from the link with this index."""
    return _message(rtnetlink.DELADDR, 0, index, cidr, [("IFA_LOCAL", str(cidr.ip)), ("IFA_ADDRESS", str(cidr.ip))])


def _message(kind: int, flags: int, index: int, cidr: Cidr, attributes: Attributes) -> Message:
    fields = {"family": FAMILIES[cidr.version], "prefixlen": cidr.network.prefixlen, "index": index}
    return Message(kind, flags | rtnetlink.ACK, fields, attributes)


def list_with_flags(link: Link) -> dict[Cidr, int]:
    """Return the addresses of the link, each with its flags (IFA_F_…)."""
    answers = link.netns.netlink.dump(Message(rtnetlink.GETADDR, 0, {"index": link.index}, []))
    return {_cidr_of(answer): answer.get_attr("IFA_FLAGS") or answer["flags"] for answer in answers}


def list_permanent(link: Link) -> dict[Cidr, bool]:
    """Return the configured addresses of the link, and for each whether the kernel added the route to its subnet.

    Addresses with a lifetime, as from DHCP or router advertisements, and link-local addresses are left out.
    """
    return {
        cidr: not flags & _NOPREFIXROUTE
        for cidr, flags in list_with_flags(link).items()
        if flags & _PERMANENT and not cidr.is_link_local
    }


def list_all(netns: NetnsHandle) -> list[Cidr]:
    """Return every address of the namespace."""
    return [_cidr_of(answer) for answer in netns.netlink.dump(Message(rtnetlink.GETADDR, 0, {}, []))]


def _cidr_of(answer: Any) -> Cidr:
    return _cidr(answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS"), answer["prefixlen"])


@lru_cache(128)
def _cidr(address: str, prefix_length: int) -> Cidr:
    """Return the address as an object: a few addresses come again and again, and parsing is slow."""
    return ip_interface((address, prefix_length))
