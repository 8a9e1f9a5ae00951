"""Netfilter's netlink over a plain socket: one request and its answers; who asks knows what the bytes mean."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager

from pycni.kernel import kept
from pycni.kernel.door import Door

NFTABLES, CONNTRACK = 10, 1  # subsystems
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_NETFILTER = 12  # the protocol NETLINK_NETFILTER
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_ATTEMPTS = 64
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
BODY = _HEADER.size + _GENERIC.size  # where the attributes of a message begin


def attribute(kind: int, content: bytes, *, nested: bool = False) -> bytes:
    """One attribute, padded."""
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind | (_NESTED if nested else 0))
    return head + content + b"\0" * (-len(content) % 4)


def text(kind: int, content: str) -> bytes:
    """An attribute that holds a string."""
    return attribute(kind, content.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in these bytes, by their kinds."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & ~_NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


class NetfilterSocket:
    """A socket to netfilter in the namespace behind a door."""

    def __init__(self, door: Door) -> None:
        with door.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, subsystem: int, command: int, family: int, body: bytes, *, flags: int = ACK) -> list[bytes]:
        """Send one request; returns the messages that answer it. Raises OSError, also for what is missing.

        What others change while the kernel lists it (a DUMP) is listed again.
        """
        for _ in range(_ATTEMPTS):
            answers = self._ask(subsystem, command, family, body, flags)
            if answers is not None:
                return answers
        raise OSError(errno.EINTR, f"the list changed during each of {_ATTEMPTS} attempts to read it")

    def _ask(self, subsystem: int, command: int, family: int, body: bytes, flags: int) -> list[bytes] | None:
        self._sequence += 1
        generic = _GENERIC.pack(family, 0, 0)
        length = _HEADER.size + len(generic) + len(body)
        header = _HEADER.pack(length, subsystem << 8 | command, REQUEST | flags, self._sequence, 0)
        self._socket.send(header + generic + body)
        answers: list[bytes] = []
        interrupted = False
        while True:
            for kind, state, sequence, message in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= bool(state & _INTERRUPTED)
                if kind == _DONE:
                    return None if interrupted else answers
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message, _HEADER.size)
                    if code == 0:
                        return answers
                    raise OSError(-code, os.strerror(-code).lower())
                answers.append(message)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, state, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, state, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def connected(door: Door) -> AbstractContextManager[NetfilterSocket]:
    """A socket to netfilter in the namespace behind the door.

    It is kept, if anything is: to close one while anybody's deletion is under way takes the kernel 10 ms.
    """
    return kept.opened(door, NetfilterSocket)
