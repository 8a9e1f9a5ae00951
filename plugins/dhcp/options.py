"""DHCP options: their numbers, the names that configurations may use, and what their bytes mean (RFC 2132)."""

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pycni.sdk import Route

_LINK_SCOPE = 253
_TIME_MAX = 0xFFFFFFFF
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_POINTER, _LABEL_MAX, _JUMPS = 0xC0, 63, 64


class Option(IntEnum):
    """The options that this client itself writes or reads."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTERS = 3
    NAME_SERVERS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    MTU = 26
    STATIC_ROUTES = 33
    NTP_SERVERS = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    KIND = 53
    SERVER = 54
    PARAMETERS = 55
    REASON = 56
    MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_ID = 61
    DOMAIN_SEARCH = 119
    CLASSLESS_ROUTES = 121
    END = 255


# The names of dhcp-options(5). The Go plugin knows the first six, and 121 and others by number alone.
_NAMES = {
    "dhcp-client-identifier": 61,
    "subnet-mask": 1,
    "routers": 3,
    "host-name": 12,
    "user-class": 77,
    "vendor-class-identifier": 60,
    "time-offset": 2,
    "time-servers": 4,
    "domain-name-servers": 6,
    "log-servers": 7,
    "domain-name": 15,
    "interface-mtu": 26,
    "broadcast-address": 28,
    "static-routes": 33,
    "nis-domain": 40,
    "nis-servers": 41,
    "ntp-servers": 42,
    "vendor-encapsulated-options": 43,
    "netbios-name-servers": 44,
    "dhcp-requested-address": 50,
    "dhcp-lease-time": 51,
    "dhcp-renewal-time": 58,
    "dhcp-rebinding-time": 59,
    "tftp-server-name": 66,
    "bootfile-name": 67,
    "fqdn": 81,
    "uuid": 97,
    "pcode": 100,
    "tcode": 101,
    "domain-search": 119,
    "classless-static-routes": 121,
}
# What this client writes itself, or what would end the message.
_OWN = frozenset(
    {Option.PAD, Option.OVERLOAD, Option.KIND, Option.SERVER, Option.PARAMETERS, Option.MESSAGE_SIZE, Option.END}
)


def number(name: str) -> int:
    """The option with this name or number. Raises ValueError."""
    if name in _NAMES:
        return _NAMES[name]
    if name.isascii() and name.isdecimal() and int(name) < Option.END and int(name) != Option.PAD:
        return int(name)
    raise ValueError(f'"{name}" is no DHCP option: there are the numbers 1 to 254, and {", ".join(sorted(_NAMES))}')


def providable(name: str) -> int:
    """The same for an option that a configuration may send. Raises ValueError."""
    code = number(name)
    if code in _OWN:
        raise ValueError(f'option "{name}" is the business of the DHCP client itself')
    return code


def encoded(code: int, value: str) -> bytes:
    """What a configuration provides, as the option is written: an address, a time, all others a text.

    Raises ValueError.
    """
    if code == Option.REQUESTED_ADDRESS:
        return IPv4Address(value).packed
    if code == Option.LEASE_TIME:
        if not value.isascii() or not value.isdecimal() or int(value) > _TIME_MAX:
            raise ValueError(f'"{value}" is no number of seconds')
        return struct.pack("!I", int(value))
    return value.encode(errors="surrogateescape")


def addresses(data: bytes) -> list[IPv4Address]:
    """The addresses in an option; what is left over is ignored."""
    return [IPv4Address(data[i : i + 4]) for i in range(0, len(data) - 3, 4)]


def text(data: bytes) -> str:
    """The text in an option, fit to be shown. Servers may end it with a zero byte (RFC 2132 section 2)."""
    decoded = data.rstrip(b"\0").decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in decoded)


def domain(data: bytes) -> str:
    """The domain name in an option; empty if it is none, and could do harm in a resolv.conf."""
    name = text(data).strip(". ")
    return name if _DOMAIN.fullmatch(name) else ""


def seconds(data: bytes) -> int | None:
    """The time in an option; None if it has none."""
    return int(struct.unpack("!I", data)[0]) if len(data) == 4 else None


def short(data: bytes) -> int | None:
    """The 16-bit number in an option; None if it has none."""
    return int(struct.unpack("!H", data)[0]) if len(data) == 2 else None


def names(data: bytes) -> list[str]:
    """The domain names in option 119, with pointers to what stood before (RFC 3397, RFC 1035 section 4.1.4)."""
    found, position = [], 0
    while position < len(data):
        name, position = _name(data, position)
        if name is None:
            break
        if _DOMAIN.fullmatch(name):
            found.append(name)
    return found


def _name(data: bytes, position: int) -> tuple[str | None, int]:
    """The name that stands there, None if it is broken; and where the next one begins."""
    labels: list[str] = []
    end = None
    for _ in range(_JUMPS):
        if position >= len(data):
            break
        length = data[position]
        if length & _POINTER == _POINTER and position + 1 < len(data):
            end = position + 2 if end is None else end
            position = (length & ~_POINTER) << 8 | data[position + 1]
        elif length == 0:
            return ".".join(labels), position + 1 if end is None else end
        elif length <= _LABEL_MAX:
            labels.append(data[position + 1 : position + 1 + length].decode(errors="replace"))
            position += 1 + length
        else:
            break
    return None, len(data)


def classless_routes(data: bytes) -> Iterator[Route]:
    """The routes in option 121 (RFC 3442): a router of 0.0.0.0 means that the destination is on the link."""
    position = 0
    while position < len(data):
        length = data[position]
        octets = (length + 7) // 8
        end = position + 1 + octets + 4
        if length > 32 or end > len(data):
            return
        destination = IPv4Address(data[position + 1 : position + 1 + octets].ljust(4, b"\0"))
        router = IPv4Address(data[end - 4 : end])
        network = IPv4Network((destination, length), strict=False)
        on_link = router.is_unspecified
        yield Route(IPv4Interface(network), router, scope=_LINK_SCOPE if on_link else None)
        position = end


def static_routes(data: bytes) -> Iterator[Route]:
    """The routes in option 33: pairs of a destination, whose class tells its prefix length, and a router."""
    pairs = addresses(data)
    for destination, router in zip(pairs[::2], pairs[1::2], strict=False):
        first = destination.packed[0]
        length = 8 if first < 128 else 16 if first < 192 else 24
        if not destination.is_unspecified:  # RFC 2132 section 5.8: a default route is not a static route
            yield Route(IPv4Interface(IPv4Network((destination, length), strict=False)), router)
