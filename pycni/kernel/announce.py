"""Telling the neighbours where an address lives now: gratuitous ARP and unsolicited neighbour advertisements."""

import logging
import socket
import struct
from collections.abc import Iterable

from pycni.kernel.links import Link
from pycni.protocol.address import Address

log = logging.getLogger(__name__)

_ARP, _IPV6 = 0x0806, 0x86DD
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_ADDRESS, _ICMPV6 = 136, 0x20000000, 2, 58


def announce(link: Link, addresses: Iterable[Address]) -> None:
    """Send one announcement for each address, out of the link; a link that is down is no error."""
    mac = bytes.fromhex(link.mac.replace(":", ""))
    with link.door.entered():
        channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    with channel:
        for address in addresses:
            protocol = _ARP if address.version == 4 else _IPV6
            try:
                channel.bind((link.name, protocol))
                channel.send(frame(mac, address))
            except OSError as error:
                log.warning("cannot announce %s on %s: %s", address, link.name, error)


def frame(mac: bytes, address: Address) -> bytes:
    """The Ethernet frame that announces the address: an ARP request or a neighbour advertisement."""
    if address.version == 4:
        return _gratuitous_arp(mac, address.packed)
    return _neighbour_advertisement(mac, address.packed)


def _gratuitous_arp(mac: bytes, ip: bytes) -> bytes:
    ethernet = b"\xff" * 6 + mac + struct.pack("!H", _ARP)
    return ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip + bytes(6) + ip


def _neighbour_advertisement(mac: bytes, ip: bytes) -> bytes:
    ethernet = b"\x33\x33" + _ALL_NODES[12:] + mac + struct.pack("!H", _IPV6)
    body = struct.pack("!I", _OVERRIDE) + ip + struct.pack("!BB", _TARGET_LINK_ADDRESS, 1) + mac
    length = 4 + len(body)
    pseudo = ip + _ALL_NODES + struct.pack("!II", length, _ICMPV6)
    unsigned = struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + body
    checksum = _checksum(pseudo + unsigned)
    icmp = struct.pack("!BBH", _ADVERTISEMENT, 0, checksum) + body
    header = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, 255)
    return ethernet + header + ip + _ALL_NODES + icmp


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
