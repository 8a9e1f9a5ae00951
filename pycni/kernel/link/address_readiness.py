"""Waiting until new addresses can be used: duplicate address detection and multicast groups."""

import socket
import time
from collections.abc import Collection, Iterable
from ipaddress import IPv6Address, IPv6Interface

from pycni.kernel.link.address_requests import DAD_FAILED, TENTATIVE, list_with_flags
from pycni.kernel.link.link import Link
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message
from pycni.kernel.scheduling import poll_with_backoff, yield_turn
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

_TIMEOUT, _DAD_PAUSE = 5.0, 0.02  # seconds
_SOLICITED_NODES = IPv6Address("ff02::1:ff00:0")


def wait_for_duplicate_address_detection(link: Link, cidrs: Iterable[Cidr]) -> None:
    """Wait until no IPv6 address is tentative. Raises CniError if one is a duplicate, or after 5 seconds."""
    wanted = {cidr for cidr in cidrs if cidr.version == 6}
    with yield_turn():
        _wait_for_detection(link, wanted)


def _wait_for_detection(link: Link, wanted: Collection[Cidr]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while wanted:
        flags = {cidr: flag for cidr, flag in list_with_flags(link).items() if cidr in wanted}
        if duplicates := [cidr for cidr, flag in flags.items() if flag & DAD_FAILED]:
            raise CniError(f"{duplicates[0]} of {link} is in use by another host (duplicate address detection)")
        if not any(flag & TENTATIVE for flag in flags.values()):
            return
        if time.monotonic() > deadline:
            raise CniError(f"duplicate address detection on {link} did not end within {_TIMEOUT:g} s")
        time.sleep(_DAD_PAUSE)


def wait_for_multicast_groups(link: Link, cidrs: Iterable[Cidr]) -> None:
    """Wait until the link receives neighbour solicitations for its IPv6 addresses. Raises CniError after 5 seconds.

    The kernel joins the solicited-node multicast groups (RFC 4291, 2.7.1) some time after it has added the addresses,
    on a busy host much later. A neighbour solicitation that comes before is lost and repeated only after a second.
    """
    wanted = {_solicited_node(cidr.ip) for cidr in cidrs if isinstance(cidr, IPv6Interface)}
    if wanted and not any(wanted <= _groups(link) for _ in poll_with_backoff(_TIMEOUT)):
        raise CniError(f"{link} did not join the multicast groups of its addresses within {_TIMEOUT:g} s")


def _solicited_node(address: IPv6Address) -> str:
    return str(IPv6Address(int(_SOLICITED_NODES) | int(address) & 0xFFFFFF))


def _groups(link: Link) -> set[str]:
    request = Message(rtnetlink.GETMULTICAST, 0, {"family": socket.AF_INET6, "index": link.index}, [])
    answers = link.netns.netlink.dump(request)
    return {answer.get_attr("IFA_MULTICAST") for answer in answers if answer["index"] == link.index}
