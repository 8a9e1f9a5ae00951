"""nfnetlink, the netlink protocol of netfilter, over a plain socket: requests, answers and transactions as bytes."""

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
_DUMP_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR, in the flags of a message
_ATTEMPTS = 64
_RECEIVE_SIZE = 1 << 16  # bytes; the kernel sends at most half of that at once
_REQUESTS_PER_BATCH = 32  # the answers must fit into the receive buffer of the socket
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_GENERIC = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
BODY = _HEADER.size + _GENERIC.size  # offset of the attributes in a message


def attribute(kind: int, content: bytes, *, nested: bool = False) -> bytes:
    """Encode an attribute, padded to a multiple of four bytes."""
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind | (_NESTED if nested else 0))
    return head + content + b"\0" * (-len(content) % 4)


def text(kind: int, content: str) -> bytes:
    """Encode an attribute that holds a string."""
    return attribute(kind, content.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each attribute in the bytes."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & ~_NESTED, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


class Request(NamedTuple):
    """A request: command, address family, encoded attributes, and flags of the message header."""

    command: int
    family: int
    body: bytes
    flags: int = 0


class NfnetlinkSocket:
    """A socket to netfilter in a network namespace."""

    def __init__(self, netns: NetnsHandle) -> None:
        with netns.enter():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, subsystem: int, command: int, family: int, body: bytes, *, flags: int = ACK) -> list[bytes]:
        """Send a request, and return the messages that answer it. Raises OSError if the kernel refuses.

        A dump that was interrupted by a change of the listed objects is repeated.
        """
        for _ in range(_ATTEMPTS):
            answers = self._ask(subsystem, command, family, body, flags)
            if answers is not None:
                return answers
        raise OSError(errno.EINTR, f"the listed objects changed during each of {_ATTEMPTS} attempts to list them")

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
                interrupted |= bool(state & _DUMP_INTERRUPTED)
                if kind == _DONE:
                    return None if interrupted else answers
                if kind == _ERROR:
                    if code := _error_code(message):
                        raise OSError(code, os.strerror(code).lower())
                    return answers
                answers.append(message)

    def ask_all(self, subsystem: int, requests: Sequence[Request]) -> list[bytes | int]:
        """Send requests that have one answer each, and return the answers; for a refused request its errno."""
        answers: list[bytes | int] = []
        for start in range(0, len(requests), _REQUESTS_PER_BATCH):
            answers += self._ask_batch(subsystem, requests[start : start + _REQUESTS_PER_BATCH])
        return answers

    def _ask_batch(self, subsystem: int, requests: Sequence[Request]) -> list[bytes | int]:
        first = self._sequence + 1
        self._sequence += len(requests)
        messages = [_message(subsystem, request, first + number) for number, request in enumerate(requests)]
        self._socket.send(b"".join(messages))
        answers: dict[int, bytes | int] = {}
        while len(answers) < len(requests):
            for kind, _, sequence, message in self._receive():
                number = sequence - first
                if 0 <= number < len(requests):
                    answers[number] = _error_code(message) if kind == _ERROR else message
        return [answers[number] for number in range(len(requests))]

    def transact(self, subsystem: int, requests: Sequence[Request]) -> dict[int, int]:
        """Run all requests in one transaction, or none of them; return the errnos of those refused, by their index."""
        first = self._sequence + 2
        self._sequence += len(requests) + 2
        last = len(requests) - 1
        # The kernel reports refusals without being asked for acknowledgements, and before that of the last request.
        messages = [_message(subsystem, r, first + n, ACK if n == last else 0) for n, r in enumerate(requests)]
        begin, end = (
            _batch_message(_BATCH_BEGIN, subsystem, first - 1),
            _batch_message(_BATCH_END, subsystem, self._sequence),
        )
        self._socket.send(b"".join((begin, *messages, end)))
        refusals: dict[int, int] = {}
        while True:
            try:
                received = list(self._receive())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return {**refusals, last: errno.ENOBUFS}  # the refusals did not fit into the receive buffer
            for kind, _, sequence, message in received:
                number = sequence - first
                if kind != _ERROR or not -1 <= number <= last:
                    continue  # belongs to an exchange that was abandoned
                if code := _error_code(message):
                    refusals[max(number, 0)] = code
                if number in (-1, last):
                    return refusals

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_SIZE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, state, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, state, sequence, data[offset : offset + length]
            offset += (length + 3) & ~3


def _message(subsystem: int, request: Request, sequence: int, flags: int = 0) -> bytes:
    """Encode a request with its headers; `flags` are added to its own."""
    content = _GENERIC.pack(request.family, 0, 0) + request.body
    kind, flags = subsystem << 8 | request.command, REQUEST | request.flags | flags
    return _HEADER.pack(_HEADER.size + len(content), kind, flags, sequence, 0) + content


def _batch_message(kind: int, subsystem: int, sequence: int) -> bytes:
    """Encode the message that begins or ends a transaction."""
    return _HEADER.pack(BODY, kind, REQUEST, sequence, 0) + _GENERIC.pack(0, 0, subsystem)


def _error_code(message: bytes) -> int:
    """Return the errno in an NLMSG_ERROR message; 0 if it is an acknowledgement."""
    return int(-struct.unpack_from("=i", message, _HEADER.size)[0])


def connected(netns: NetnsHandle) -> NfnetlinkSocket:
    """Return the netfilter socket of the namespace, opened on first use.

    All users share it: while nftables objects are being deleted, it takes the kernel 10 ms to close such a socket.
    """
    return netns.get_or_open(NfnetlinkSocket)
