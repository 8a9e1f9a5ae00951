"""DHCP messages as they are on the wire (RFC 2131 section 2, RFC 2132, RFC 3396)."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Self

from .options import Option

NOBODY = IPv4Address(0)  # the address of those who have none yet
_REQUEST, _REPLY, _ETHERNET, _BROADCAST = 1, 2, 1, 0x8000
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"
_FILE, _SERVER_NAME = 1, 2  # which fields hold options too, by option overload
_MINIMUM = 300  # bytes: what BOOTP relays expect
_OPTION_MAX = 255


class Kind(IntEnum):
    """What a message is (option 53)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class MessageError(ValueError):
    """What came is no DHCP message."""


@dataclass(frozen=True)
class Message:
    """A message from or to a client with an Ethernet address."""

    kind: Kind
    xid: int
    mac: str
    client: IPv4Address = NOBODY  # ciaddr: the address that the client has
    yours: IPv4Address = NOBODY  # yiaddr: the one that it gets
    broadcast: bool = False  # whether answers are to be broadcast
    seconds: int = 0  # since the client began
    options: Mapping[int, bytes] = field(default_factory=dict)  # all but 53

    def encode(self) -> bytes:
        """The bytes of a client's message; long options are split (RFC 3396)."""
        hardware = bytes.fromhex(self.mac.replace(":", ""))
        header = _HEADER.pack(
            *(_REQUEST, _ETHERNET, len(hardware), 0),
            *(self.xid, min(self.seconds, 0xFFFF), _BROADCAST if self.broadcast else 0),
            *(self.client.packed, self.yours.packed, NOBODY.packed, NOBODY.packed),
            *(hardware, b"", b""),
        )
        options = b"".join(
            _encode(code, value) for code, value in {Option.KIND: bytes([self.kind]), **self.options}.items()
        )
        return (header + _COOKIE + options + bytes([Option.END])).ljust(_MINIMUM, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a server's message. Raises MessageError."""
        start = _HEADER.size + len(_COOKIE)
        if len(data) < start or data[_HEADER.size : start] != _COOKIE:
            raise MessageError("not a DHCP message")
        op, _, length, _, xid, _, flags, client, yours, _, _, hardware, server_name, file = _HEADER.unpack_from(data)
        options = _joined(_options(data[start:]))
        overload = (options.get(Option.OVERLOAD) or b"\0")[0]
        if overload & (_FILE | _SERVER_NAME):
            parts = [data[start:], file if overload & _FILE else b"", server_name if overload & _SERVER_NAME else b""]
            options = _joined(item for part in parts for item in _options(part))
        if op != _REPLY or len(options.get(Option.KIND, b"")) != 1:
            raise MessageError("not a server's message")
        try:
            kind = Kind(options.pop(Option.KIND)[0])
        except ValueError:
            raise MessageError("a kind of message that no client knows") from None
        mac = hardware[: min(length, len(hardware))].hex(":")
        broadcast = bool(flags & _BROADCAST)
        return cls(kind, xid, mac, IPv4Address(client), IPv4Address(yours), broadcast, options=options)


def _encode(code: int, value: bytes) -> bytes:
    chunks = [value[i : i + _OPTION_MAX] for i in range(0, len(value), _OPTION_MAX)] or [b""]
    return b"".join(bytes([code, len(chunk)]) + chunk for chunk in chunks)


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The options in a field, up to its end or to where it is broken."""
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
    """By code; what is there several times is one long option in parts (RFC 3396)."""
    joined: dict[int, bytes] = {}
    for code, value in options:
        joined[code] = joined.get(code, b"") + value
    return joined
