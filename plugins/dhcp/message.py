"""Encoding and decoding of DHCP messages (RFC 2131 section 2, RFC 2132, RFC 3396)."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Self

from .options import Option

UNSPECIFIED = IPv4Address(0)  # the address of a client that has none yet
_BOOTREQUEST, _BOOTREPLY, _ETHERNET, _BROADCAST = 1, 2, 1, 0x8000
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_MAGIC_COOKIE = b"\x63\x82\x53\x63"
_FILE, _SNAME = 1, 2  # bits of option overload: the fields that contain options too
_MINIMUM = 300  # bytes; BOOTP relays may drop shorter messages
_OPTION_MAX = 255


class MessageType(IntEnum):
    """DHCP message types (option 53)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class MessageError(ValueError):
    """The data is not a DHCP message of a server."""


@dataclass(frozen=True)
class Message:
    """A message from or to a client with an Ethernet address. Fields have their names in RFC 2131."""

    message_type: MessageType
    xid: int  # transaction id
    chaddr: str  # MAC address of the client
    ciaddr: IPv4Address = UNSPECIFIED  # address that the client has
    yiaddr: IPv4Address = UNSPECIFIED  # address that the server offers or assigns
    broadcast: bool = False  # broadcast flag: the server broadcasts its answers
    secs: int = 0  # seconds since the client began
    options: Mapping[int, bytes] = field(default_factory=dict)  # all but option 53

    def encode(self) -> bytes:
        """Return the bytes of a client's message. Long options are split (RFC 3396)."""
        hardware = bytes.fromhex(self.chaddr.replace(":", ""))
        header = _HEADER.pack(
            *(_BOOTREQUEST, _ETHERNET, len(hardware), 0),
            *(self.xid, min(self.secs, 0xFFFF), _BROADCAST if self.broadcast else 0),
            *(self.ciaddr.packed, self.yiaddr.packed, UNSPECIFIED.packed, UNSPECIFIED.packed),
            *(hardware, b"", b""),
        )
        options = b"".join(
            _encode(code, value)
            for code, value in {Option.MESSAGE_TYPE: bytes([self.message_type]), **self.options}.items()
        )
        return (header + _MAGIC_COOKIE + options + bytes([Option.END])).ljust(_MINIMUM, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decode a server's message. Raise MessageError."""
        start = _HEADER.size + len(_MAGIC_COOKIE)
        if len(data) < start or data[_HEADER.size : start] != _MAGIC_COOKIE:
            raise MessageError("not a DHCP message")
        op, _, length, _, xid, _, flags, ciaddr, yiaddr, _, _, hardware, sname, file = _HEADER.unpack_from(data)
        options = _joined(_split_options(data[start:]))
        overload = (options.get(Option.OVERLOAD) or b"\0")[0]
        if overload & (_FILE | _SNAME):
            parts = [data[start:], file if overload & _FILE else b"", sname if overload & _SNAME else b""]
            options = _joined(item for part in parts for item in _split_options(part))
        if op != _BOOTREPLY or len(options.get(Option.MESSAGE_TYPE, b"")) != 1:
            raise MessageError("not a message of a DHCP server")
        try:
            message_type = MessageType(options.pop(Option.MESSAGE_TYPE)[0])
        except ValueError:
            raise MessageError("unknown DHCP message type") from None
        chaddr = hardware[: min(length, len(hardware))].hex(":")
        broadcast = bool(flags & _BROADCAST)
        return cls(message_type, xid, chaddr, IPv4Address(ciaddr), IPv4Address(yiaddr), broadcast, options=options)


def _encode(code: int, value: bytes) -> bytes:
    chunks = [value[i : i + _OPTION_MAX] for i in range(0, len(value), _OPTION_MAX)] or [b""]
    return b"".join(bytes([code, len(chunk)]) + chunk for chunk in chunks)


def _split_options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the options in a field, up to the end option or to the first malformed one."""
    position = 0
    while position < len(data) and data[position] != Option.END:
        code = data[position]
        if code == Option.PAD:
            position += 1
            continue
        if position + 1 >= len(data):
            return
        length = data[position + 1]
        value = data[position + 2 : position + 2 + length]
        if len(value) < length:
            return
        yield code, value
        position += 2 + length


def _joined(options: Iterator[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return the options by code. Options that occur several times are concatenated (RFC 3396)."""
    joined: dict[int, bytes] = {}
    for code, value in options:
        joined[code] = joined.get(code, b"") + value
    return joined
