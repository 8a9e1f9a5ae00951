"""DHCP options (RFC 2132): codes, names for the configuration, and encoding of values."""

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pycni.sdk import Route

_LINK_SCOPE = 253
_TIME_MAX = 0xFFFFFFFF
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_POINTER, _LABEL_MAX, _MAX_LABELS = 0xC0, 63, 64


class Option(IntEnum):
    """Codes of the options that this client sends or reads."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTERS = 3
    DOMAIN_NAME_SERVERS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    MTU = 26
    STATIC_ROUTES = 33
    NTP_SERVERS = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    ERROR_MESSAGE = 56
    MAX_MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_ID = 61
    DOMAIN_SEARCH = 119
    CLASSLESS_ROUTES = 121
    END = 255


# Names as in dhcp-options(5). The Go plugin supports the first six; others only by number.
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
# Options that the client sets itself, and pad and end, which would break the message.
_RESERVED = frozenset(
    {
        Option.PAD,
        Option.OVERLOAD,
        Option.MESSAGE_TYPE,
        Option.SERVER_ID,
        Option.PARAMETER_LIST,
        Option.MAX_MESSAGE_SIZE,
        Option.END,
    }
)


def code_of(name: str) -> int:
    """Return the code of an option given by name or number. Raise ValueError."""
    if name in _NAMES:
        return _NAMES[name]
    if name.isascii() and name.isdecimal() and int(name) < Option.END and int(name) != Option.PAD:
        return int(name)
    raise ValueError(f'"{name}" is not a DHCP option: use a number from 1 to 254, or {", ".join(sorted(_NAMES))}')


def providable_code_of(name: str) -> int:
    """Return the code of an option that the configuration may send. Raise ValueError for reserved ones too."""
    code = code_of(name)
    if code in _RESERVED:
        raise ValueError(f'option "{name}" cannot be provided: the DHCP client sets it itself')
    return code


def encoded(code: int, value: str) -> bytes:
    """Return the encoded value: an address for option 50, seconds for 51, text for others. Raise ValueError."""
    if code == Option.REQUESTED_ADDRESS:
        return IPv4Address(value).packed
    if code == Option.LEASE_TIME:
        if not value.isascii() or not value.isdecimal() or int(value) > _TIME_MAX:
            raise ValueError(f'"{value}" is not a number of seconds')
        return struct.pack("!I", int(value))
    return value.encode(errors="surrogateescape")


def addresses(data: bytes) -> list[IPv4Address]:
    """Return the addresses in an option. Trailing bytes are ignored."""
    return [IPv4Address(data[i : i + 4]) for i in range(0, len(data) - 3, 4)]


def text(data: bytes) -> str:
    """Return the printable text in an option. Servers may append a zero byte (RFC 2132 section 2)."""
    decoded = data.rstrip(b"\0").decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in decoded)


def domain(data: bytes) -> str:
    """Return the domain name in an option; "" if it is not valid and would be unsafe in resolv.conf."""
    name = text(data).strip(". ")
    return name if _DOMAIN.fullmatch(name) else ""


def seconds(data: bytes) -> int | None:
    """Return the time in seconds in an option; None unless it has 4 bytes."""
    return int(struct.unpack("!I", data)[0]) if len(data) == 4 else None


def short(data: bytes) -> int | None:
    """Return the 16-bit number in an option; None unless it has 2 bytes."""
    return int(struct.unpack("!H", data)[0]) if len(data) == 2 else None


def names(data: bytes) -> list[str]:
    """Return the domain names in option 119, which may be compressed (RFC 3397, RFC 1035 section 4.1.4)."""
    found, position = [], 0
    while position < len(data):
        name, position = _domain_name(data, position)
        if name is None:
            break
        if _DOMAIN.fullmatch(name):
            found.append(name)
    return found


def _domain_name(data: bytes, position: int) -> tuple[str | None, int]:
    """Return the name at the position, None if it is malformed, and the position of the next name."""
    labels: list[str] = []
    end = None
    for _ in range(_MAX_LABELS):  # pointers may form a loop
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
    """Yield the routes in option 121 (RFC 3442). A router 0.0.0.0 means that the destination is on the link."""
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
    """Yield the routes in option 33: pairs of a destination, with the prefix length of its class, and a router."""
    pairs = addresses(data)
    for destination, router in zip(pairs[::2], pairs[1::2], strict=False):
        first = destination.packed[0]
        length = 8 if first < 128 else 16 if first < 192 else 24
        if not destination.is_unspecified:  # RFC 2132 section 5.8 forbids a default route here
            yield Route(IPv4Interface(IPv4Network((destination, length), strict=False)), router)
