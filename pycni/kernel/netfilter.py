"""Netfilter's netlink over a plain socket: one request and its answers; who asks knows what the bytes mean."""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pycni.kernel import kept
from pycni.kernel.door import Door

NFTABLES, CONNTRACK = 10, 1  # subsystems
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_NETFILTER = 12  # the protocol NETLINK_NETFILTER
_ERROR, _DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 16, 17
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


@dataclass(frozen=True, slots=True)
class Request:
    """One part of a transaction: what is to be done, in which family, with which attributes and flags."""

    command: int
    family: int
    body: bytes
    flags: int


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

    def transact(self, subsystem: int, requests: Sequence[Request]) -> dict[int, int]:
        """Do all of this or nothing; returns by their numbers which were refused, with an errno of each."""
        first = self._sequence + 2
        self._sequence += len(requests) + 2
        whole = _GENERIC.pack(0, 0, subsystem)
        messages = [_message(_BATCH_BEGIN, REQUEST, first - 1, whole)]
        for number, request in enumerate(requests):
            # What the kernel refuses it says in any case, and all that before it says that the last was done.
            flags = REQUEST | request.flags | (ACK if number == len(requests) - 1 else 0)
            body = _GENERIC.pack(request.family, 0, 0) + request.body
            messages.append(_message(subsystem << 8 | request.command, flags, first + number, body))
        messages.append(_message(_BATCH_END, REQUEST, self._sequence, whole))
        self._socket.send(b"".join(messages))
        refusals: dict[int, int] = {}
        while True:
            for kind, _, sequence, message in self._receive():
                number = sequence - first
                if kind != _ERROR or not -1 <= number < len(requests):
                    continue  # the rest of an exchange that was given up
                (code,) = struct.unpack_from("=i", message, _HEADER.size)
                if code:
                    refusals[max(number, 0)] = -code
                if number in (-1, len(requests) - 1):
                    return refusals

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, state, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, state, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def _message(kind: int, flags: int, sequence: int, content: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(content), kind, flags, sequence, 0) + content + b"\0" * (-len(content) % 4)


def connected(door: Door) -> AbstractContextManager[NetfilterSocket]:
    """A socket to netfilter in the namespace behind the door.

    It is kept, if anything is: to close one while anybody's deletion is under way takes the kernel 10 ms.
    """
    return kept.opened(door, NetfilterSocket)
