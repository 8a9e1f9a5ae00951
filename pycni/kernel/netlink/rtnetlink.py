"""rtnetlink over a plain socket. Several requests are sent in one datagram.

Messages are encoded by the codec, or by pyroute2 if the codec does not support them. A request takes about 10 µs;
pyroute2's request loop would add 300 to 500 µs.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pycni.kernel.netlink import codec, messages
from pycni.kernel.netlink.codec import Attributes
from pycni.protocol.errors import CniError

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
GETMULTICAST = 58
NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWTFILTER, GETTFILTER = 44, 46
NEWLINKPROP = 108

REQUEST, ACK, ECHO, DUMP = 0x1, 0x4, 0x8, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
CREATE_NEW = ACK | CREATE | EXCLUSIVE  # fails with EEXIST if the object exists

_SINGLE_ANSWER = frozenset({GETLINK, GETROUTE})  # the kernel answers with one message, or with an error

_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_SOL_NETLINK, _EXT_ACK, _STRICT_CHECK = 270, 11, 12
_HEADER = struct.Struct("=IHHII")
_EXT_ACK_TEXT = 1
_RECEIVE = 1 << 16  # bytes; the kernel sends at most half of it at once, and larger buffers are slower (mmap)
_DUMP_ATTEMPTS = 64


class NetlinkError(OSError):
    """An error reported by the kernel: an errno, with the kernel's explanation if it sent one."""

    def __init__(self, code: int, explanation: str) -> None:
        super().__init__(code, f"{os.strerror(code).lower()}{f' ({explanation})' if explanation else ''}")

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def explain_errors(failure: str, *, rolled_back: bool = False) -> Iterator[None]:
    """Turn a NetlinkError inside this block into a CniError that starts with `failure`, as in "cannot set eth0 up".

    `rolled_back` says that nothing has been changed then, see Journal.change.
    """
    try:
        yield
    except NetlinkError as error:
        explained = CniError(f"{failure}: {error}")
        explained.rolled_back = rolled_back
        raise explained from None


class Message(NamedTuple):
    """A request: message type, flags, fields of the fixed header, and attributes."""

    type: int
    flags: int
    fields: Mapping[str, int]
    attributes: Attributes

    def encode(self, sequence: int, *, acknowledged: bool = True) -> bytes:
        """Return the bytes of the message. Unless `acknowledged`, the flag for an acknowledgement is removed."""
        flags = REQUEST | (self.flags if acknowledged else self.flags & ~ACK)
        data = codec.encode(self.type, flags, sequence, self.fields, self.attributes)
        return self.encode_in_full(sequence, acknowledged=acknowledged) if data is None else data

    def encode_in_full(self, sequence: int, *, acknowledged: bool = True) -> bytes:
        """Return the same bytes, encoded by pyroute2."""
        flags = REQUEST | (self.flags if acknowledged else self.flags & ~ACK)
        message = messages.message_class(self.type)()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = list(self.attributes)
        message["header"].update(type=self.type, flags=flags, sequence_number=sequence, pid=0)
        message.encode()
        return bytes(message.data)


def link_message(kind: int, attributes: Attributes, *, how: int = ACK, **fields: int) -> Message:
    """Return a message about a link. `how` are the flags of netlink, and the field `flags` those of the interface."""
    return Message(kind, how, fields, attributes)


class RouteSocket:
    """An rtnetlink socket of the namespace in which it was created."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, *messages: Message) -> list[Any]:
        """Send all messages in one datagram. Return the decoded answers. Raises NetlinkError for the first error."""
        answers: list[Any] = []
        for outcome in self.outcomes(*messages):
            if isinstance(outcome, NetlinkError):
                raise outcome
            answers += outcome
        return answers

    def outcomes(self, *messages: Message) -> list[list[Any] | NetlinkError]:
        """Send all messages in one datagram. Return the outcome of each: its answers, or the error."""
        if not messages:
            return []
        first, last = self._sequence + 1, self._sequence + len(messages)
        self._sequence = last
        # The kernel handles the messages in order and always reports errors. So the answer to the last one is the end.
        single_answer = messages[-1].type in _SINGLE_ANSWER
        data = [message.encode(first + i, acknowledged=False) for i, message in enumerate(messages[:-1])]
        data.append(messages[-1].encode(last, acknowledged=not single_answer))
        self._socket.send(b"".join(data))
        outcomes: list[Any] = [[] for _ in messages]
        ended = False
        while not ended:
            for kind, sequence, _, body in self._receive():
                if not first <= sequence <= last:
                    continue  # left over from an exchange that an exception ended
                if kind != _ERROR:
                    outcomes[sequence - first].append(codec.read(kind, body))
                elif (error := _error(body)) is not None:
                    outcomes[sequence - first] = error
                ended |= sequence == last and (kind == _ERROR or single_answer)
        return outcomes

    def dump(self, message: Message) -> list[Any]:
        """Return all objects that the kernel lists. The request is repeated if the list changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS):
            answers = self._dump_once(message)
            if answers is not None:
                return answers
        raise NetlinkError(errno.EINTR, f"the list changed during each of {_DUMP_ATTEMPTS} attempts to read it")

    def _dump_once(self, message: Message) -> list[Any] | None:
        self._sequence += 1
        own, interrupted = self._sequence, False
        answers: list[Any] = []
        self._socket.send(Message(message.type, message.flags | DUMP, message.fields, message.attributes).encode(own))
        while True:
            for kind, sequence, flags, body in self._receive():
                if sequence != own:
                    continue
                interrupted |= bool(flags & _DUMP_INTERRUPTED)
                if kind == _ERROR:
                    raise _error(body) or NetlinkError(errno.EIO, "the kernel ended a dump without NLMSG_DONE")
                if kind == _DONE:
                    return None if interrupted else answers
                answers.append(codec.read(kind, body))

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """Receive a datagram. Return type, sequence number, flags and bytes of each message in it."""
        data = self._socket.recv(_RECEIVE)
        messages, offset, header = [], 0, _HEADER.unpack_from
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = header(data, offset)
            messages.append((kind, sequence, flags, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _error(body: bytes) -> NetlinkError | None:
    """Return the error in an NLMSG_ERROR, with the kernel's extended ACK if it sent one; None for an ACK."""
    (code,) = struct.unpack_from("=i", body, _HEADER.size)
    if code == 0:
        return None
    return NetlinkError(-code, _explanation(body))


def _explanation(body: bytes) -> str:
    (original,) = struct.unpack_from("=I", body, _HEADER.size + 4)
    _, _, flags, _, _ = _HEADER.unpack_from(body, 0)
    capped = flags & 0x100  # NLM_F_CAPPED: only the header of the request is included
    offset = _HEADER.size + 4 + (_HEADER.size if capped else (original + 3) & ~3)
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        if kind == _EXT_ACK_TEXT:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
