"""Netfilter's netlink over a plain socket: one request and its answers; who asks knows what the bytes mean."""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pycni.kernel.netns.handle import NetnsHandle

NFTABLES, CONNTRACK = 10, 1  # subsystems
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_NETFILTER = 12  # the protocol NETLINK_NETFILTER
_ERROR, _DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 16, 17
_NESTED = 0x8000
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_ATTEMPTS = 64
_RECEIVE = 1 << 16  # bytes; the kernel sends no more than half of that at once
_AT_ONCE = 32  # questions: their answers must find room in the socket
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


class Request(NamedTuple):
    """What is to be told or done, in which family, with which attributes and flags."""

    command: int
    family: int
    body: bytes
    flags: int = 0


class NfnetlinkSocket:
    """A socket to netfilter in the namespace behind a door."""

    def __init__(self, netns: NetnsHandle) -> None:
        with netns.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
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
                    if code := _code(message):
                        raise OSError(code, os.strerror(code).lower())
                    return answers
                answers.append(message)

    def ask_all(self, subsystem: int, requests: Sequence[Request]) -> list[bytes | int]:
        """Send requests that are answered by one message each; returns that, or the errno of a refusal, of each."""
        answers: list[bytes | int] = []
        for start in range(0, len(requests), _AT_ONCE):
            answers += self._ask_some(subsystem, requests[start : start + _AT_ONCE])
        return answers

    def _ask_some(self, subsystem: int, requests: Sequence[Request]) -> list[bytes | int]:
        first = self._sequence + 1
        self._sequence += len(requests)
        messages = [_message(subsystem, request, first + number) for number, request in enumerate(requests)]
        self._socket.send(b"".join(messages))
        answers: dict[int, bytes | int] = {}
        while len(answers) < len(requests):
            for kind, _, sequence, message in self._receive():
                number = sequence - first
                if 0 <= number < len(requests):
                    answers[number] = _code(message) if kind == _ERROR else message
        return [answers[number] for number in range(len(requests))]

    def transact(self, subsystem: int, requests: Sequence[Request]) -> dict[int, int]:
        """Do all of this or nothing; returns by their numbers which were refused, with an errno of each."""
        first = self._sequence + 2
        self._sequence += len(requests) + 2
        last = len(requests) - 1
        # What the kernel refuses it says in any case, and all that before it says that the last was done.
        messages = [_message(subsystem, r, first + n, ACK if n == last else 0) for n, r in enumerate(requests)]
        begin, end = _border(_BATCH_BEGIN, subsystem, first - 1), _border(_BATCH_END, subsystem, self._sequence)
        self._socket.send(b"".join((begin, *messages, end)))
        refusals: dict[int, int] = {}
        while True:
            try:
                received = list(self._receive())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return {**refusals, last: errno.ENOBUFS}  # more refusals than there is room for
            for kind, _, sequence, message in received:
                number = sequence - first
                if kind != _ERROR or not -1 <= number <= last:
                    continue  # the rest of an exchange that was given up
                if code := _code(message):
                    refusals[max(number, 0)] = code
                if number in (-1, last):
                    return refusals

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, state, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, state, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def _message(subsystem: int, request: Request, sequence: int, flags: int = 0) -> bytes:
    """A request with its headers; `flags` are added to its own."""
    content = _GENERIC.pack(request.family, 0, 0) + request.body
    kind, flags = subsystem << 8 | request.command, REQUEST | request.flags | flags
    return _HEADER.pack(_HEADER.size + len(content), kind, flags, sequence, 0) + content


def _border(kind: int, subsystem: int, sequence: int) -> bytes:
    """Where a transaction begins or ends."""
    return _HEADER.pack(BODY, kind, REQUEST, sequence, 0) + _GENERIC.pack(0, 0, subsystem)


def _code(message: bytes) -> int:
    """The errno in an NLMSG_ERROR; 0 in an acknowledgement."""
    return int(-struct.unpack_from("=i", message, _HEADER.size)[0])


def connected(netns: NetnsHandle) -> NfnetlinkSocket:
    """A socket to netfilter in the namespace behind the door.

    One is enough for all that is done there: to close it while anybody's deletion is under way takes the kernel 10 ms.
    """
    return netns.opened(NfnetlinkSocket)
