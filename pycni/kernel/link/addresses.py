"""Addresses on links: given, compared, and waited for where duplicate address detection is wanted."""

import errno
import socket
import time
from collections.abc import Collection, Iterable
from functools import lru_cache, partial
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Any

from pycni.kernel.link.links import Link, explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.scheduling import poll_with_backoff, yield_turn
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_NODAD, _DADFAILED, _TENTATIVE, _PERMANENT, _NOPREFIXROUTE = 0x02, 0x08, 0x40, 0x80, 0x200
_DEADLINE, _DAD_PAUSE = 5.0, 0.02  # seconds
_SOLICITED_NODES = IPv6Address("ff02::1:ff00:0")


def addition(index: int, cidr: Cidr, *, dad: bool = False, on_link: bool = True) -> Message:
    """The request that gives an address to the link with this index.

    Without `dad` an IPv6 address is usable at once: IPAM has made sure that it is nobody else's. Without `on_link` the
    rest of its subnet is not behind the link, so the kernel makes no route to it.
    """
    attributes: list[tuple[str, Any]] = [("IFA_LOCAL", str(cidr.ip)), ("IFA_ADDRESS", str(cidr.ip))]
    if isinstance(cidr, IPv4Interface) and cidr.network.prefixlen < 31:
        attributes.append(("IFA_BROADCAST", str(cidr.network.broadcast_address)))
    flags = (_NODAD if cidr.version == 6 and not dad else 0) | (0 if on_link else _NOPREFIXROUTE)
    if flags:
        attributes.append(("IFA_FLAGS", flags))
    return _message(rtnetlink.NEWADDR, rtnetlink.CREATE | rtnetlink.EXCLUSIVE, index, cidr, attributes)


def removal(index: int, cidr: Cidr) -> Message:
    """The request that takes an address away from the link with this index."""
    return _message(rtnetlink.DELADDR, 0, index, cidr, [("IFA_LOCAL", str(cidr.ip)), ("IFA_ADDRESS", str(cidr.ip))])


def _message(kind: int, flags: int, index: int, cidr: Cidr, attributes: Attributes) -> Message:
    fields = {"family": FAMILIES[cidr.version], "prefixlen": cidr.network.prefixlen, "index": index}
    return Message(kind, flags | rtnetlink.ACK, fields, attributes)


def on(link: Link) -> dict[Cidr, int]:
    """The addresses of the link and the flags of each."""
    question = Message(rtnetlink.GETADDR, 0, {"index": link.index}, [])
    return {
        _cidr(answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS"), answer["prefixlen"]): (
            answer.get_attr("IFA_FLAGS") or answer["flags"]
        )
        for answer in link.netns.netlink.dump(question)
    }


@lru_cache(128)
def _cidr(address: str, length: int) -> Cidr:
    """An address and the length of its prefix; the same few come again and again."""
    return ip_interface((address, length))


def lasting_on(link: Link) -> dict[Cidr, bool]:
    """The addresses that somebody gave the link for good, and of each: is the rest of its subnet behind the link?

    Neither leases, nor what the kernel makes itself.
    """
    return {
        cidr: not flags & _NOPREFIXROUTE
        for cidr, flags in on(link).items()
        if flags & _PERMANENT and not cidr.is_link_local
    }


def expect(link: Link, cidr: Cidr) -> None:
    """Raise CniError unless the link has the address with this prefix length."""
    if cidr not in on(link):
        raise CniError(f"{link} has lost {cidr}")


def ensure(link: Link, cidr: Cidr, *, force: bool = False) -> None:
    """Give a shared link the address, unless it has it.

    Any other IPv4 address, and any overlapping IPv6 address, is in the way: with `force` it goes, else CniError.
    """
    present = [address for address in on(link) if address.version == cidr.version]
    if cidr in present:
        return
    strangers = [other for other in present if other.version == 4 or other.network.overlaps(cidr.network)]
    if strangers and not force:
        raise CniError(
            f'"{link}" already has an IP address different from {cidr}: {", ".join(map(str, strangers))}',
            details=f"remove it (ip addr del {strangers[0]} dev {link}) or let forceAddress replace it",
        )
    for other in strangers:
        link.netns.journal.change(f"take {other} from {link}", partial(_remove, link, other))
    link.netns.journal.change(f"give {cidr} to {link}", partial(_add, link, cidr))


def _add(link: Link, cidr: Cidr) -> None:
    with explained(f"cannot give {cidr} to {link}"):
        (outcome,) = link.netns.netlink.outcomes(addition(link.index, cidr))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:  # a simultaneous ADD was first
            raise outcome


def _remove(link: Link, cidr: Cidr) -> None:
    with explained(f"cannot take {cidr} from {link}"):
        (outcome,) = link.netns.netlink.outcomes(removal(link.index, cidr))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EADDRNOTAVAIL:
            raise outcome


def wait_until_heard(link: Link, cidrs: Iterable[Cidr]) -> None:
    """Wait until the link hears who asks for its IPv6 addresses. Raises CniError if it never does.

    The kernel joins the groups in which they are asked for (RFC 4291, 2.7.1) a little later than it takes the
    addresses, on a busy host much later. A neighbour's question before that is lost, and repeated after a second.
    """
    wanted = {_solicited_node(cidr.ip) for cidr in cidrs if isinstance(cidr, IPv6Interface)}
    if wanted and not any(wanted <= _groups(link) for _ in poll_with_backoff(_DEADLINE)):
        raise CniError(f"{link} did not join the multicast groups of its addresses within {_DEADLINE:g} s")


def _solicited_node(address: IPv6Address) -> str:
    return str(IPv6Address(int(_SOLICITED_NODES) | int(address) & 0xFFFFFF))


def _groups(link: Link) -> set[str]:
    question = Message(rtnetlink.GETMULTICAST, 0, {"family": socket.AF_INET6, "index": link.index}, [])
    answers = link.netns.netlink.dump(question)
    return {answer.get_attr("IFA_MULTICAST") for answer in answers if answer["index"] == link.index}


def wait_for_detection(link: Link, cidrs: Iterable[Cidr]) -> None:
    """Wait for duplicate address detection. Raises CniError if an address is a duplicate or stays undecided."""
    wanted = {cidr for cidr in cidrs if cidr.version == 6}
    with yield_turn():
        _wait_for_detection(link, wanted)


def _wait_for_detection(link: Link, wanted: Collection[Cidr]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while wanted:
        flags = {cidr: flag for cidr, flag in on(link).items() if cidr in wanted}
        if duplicates := [cidr for cidr, flag in flags.items() if flag & _DADFAILED]:
            raise CniError(f"{duplicates[0]} of {link} is in use by another host (duplicate address detection)")
        if not any(flag & _TENTATIVE for flag in flags.values()):
            return
        if time.monotonic() > deadline:
            raise CniError(f"duplicate address detection on {link} did not end within {_DEADLINE:g} s")
        time.sleep(_DAD_PAUSE)


def in_namespace(netns: NetnsHandle) -> list[Cidr]:
    """Every address of the namespace."""
    answers = netns.netlink.dump(Message(rtnetlink.GETADDR, 0, {}, []))
    return [
        _cidr(answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS"), answer["prefixlen"]) for answer in answers
    ]
