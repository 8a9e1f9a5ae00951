"""rtnetlink over a plain socket: requests travel in batches, pyroute2 is asked for what our own codec does not know.

One request costs about 10 microseconds this way; pyroute2's own request loop would add 300 to 500.
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

_ANSWERED_ONCE = frozenset({GETLINK, GETROUTE})  # by one message, or refused

_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_SOL_NETLINK, _EXT_ACK, _STRICT_CHECK = 270, 11, 12
_HEADER = struct.Struct("=IHHII")
_EXT_ACK_TEXT = 1
_RECEIVE = 1 << 16  # bytes; the kernel sends no more than half of that at once, and for more memory would be mapped
_DUMP_ATTEMPTS = 64


class NetlinkError(OSError):
    """The kernel's refusal: an errno, and its own explanation where it gives one."""

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
    """A request: its type, flags, the fields of its fixed header, and its attributes."""

    type: int
    flags: int
    fields: Mapping[str, int]
    attributes: Attributes

    def encode(self, sequence: int, *, acknowledged: bool = True) -> bytes:
        """The bytes for the kernel, which says that it has done so only if that is to be `acknowledged`."""
        flags = REQUEST | (self.flags if acknowledged else self.flags & ~ACK)
        data = codec.encode(self.type, flags, sequence, self.fields, self.attributes)
        return self.encode_in_full(sequence, acknowledged=acknowledged) if data is None else data

    def encode_in_full(self, sequence: int, *, acknowledged: bool = True) -> bytes:
        """The same by pyroute2, which knows every attribute there is."""
        flags = REQUEST | (self.flags if acknowledged else self.flags & ~ACK)
        message = messages.message_class(self.type)()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = list(self.attributes)
        message["header"].update(type=self.type, flags=flags, sequence_number=sequence, pid=0)
        message.encode()
        return bytes(message.data)


def link_message(kind: int, attributes: Attributes, *, how: int = ACK, **fields: int) -> Message:
    """A message about a link; `how` are netlink's flags, the field `flags` are the interface's own."""
    return Message(kind, how, fields, attributes)


class RouteSocket:
    """A socket to the rtnetlink of the namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def request(self, *messages: Message) -> list[Any]:
        """Send all in one datagram; returns the decoded answers. Raises NetlinkError for the first refusal."""
        answers: list[Any] = []
        for outcome in self.outcomes(*messages):
            if isinstance(outcome, NetlinkError):
                raise outcome
            answers += outcome
        return answers

    def outcomes(self, *messages: Message) -> list[list[Any] | NetlinkError]:
        """Send all in one datagram; returns what became of each: its answers, or the kernel's refusal."""
        if not messages:
            return []
        first, last = self._sequence + 1, self._sequence + len(messages)
        self._sequence = last
        # What the kernel refuses it says in any case, one after the other: so the end of the last is that of all.
        answered = messages[-1].type in _ANSWERED_ONCE
        data = [message.encode(first + i, acknowledged=False) for i, message in enumerate(messages[:-1])]
        data.append(messages[-1].encode(last, acknowledged=not answered))
        self._socket.send(b"".join(data))
        outcomes: list[Any] = [[] for _ in messages]
        ended = False
        while not ended:
            for kind, sequence, _, body in self._receive():
                if not first <= sequence <= last:
                    continue  # the rest of an exchange that was given up
                if kind != _ERROR:
                    outcomes[sequence - first].append(codec.read(kind, body))
                elif (refusal := _refusal(body)) is not None:
                    outcomes[sequence - first] = refusal
                ended |= sequence == last and (kind == _ERROR or answered)
        return outcomes

    def dump(self, message: Message) -> list[Any]:
        """All objects that the kernel lists; asked again if it changed its list meanwhile."""
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
                    raise _refusal(body) or NetlinkError(errno.EIO, "a dump ended without its end")
                if kind == _DONE:
                    return None if interrupted else answers
                answers.append(codec.read(kind, body))

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """What the kernel says next: type, sequence number, flags, and the whole of each message."""
        data = self._socket.recv(_RECEIVE)
        messages, offset, header = [], 0, _HEADER.unpack_from
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = header(data, offset)
            messages.append((kind, sequence, flags, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages


def _refusal(body: bytes) -> NetlinkError | None:
    """The error in an NLMSG_ERROR, with the kernel's extended explanation if it sent one; None for an ACK."""
    (code,) = struct.unpack_from("=i", body, _HEADER.size)
    if code == 0:
        return None
    return NetlinkError(-code, _explanation(body))


def _explanation(body: bytes) -> str:
    (original,) = struct.unpack_from("=I", body, _HEADER.size + 4)
    _, _, flags, _, _ = _HEADER.unpack_from(body, 0)
    capped = flags & 0x100  # NLM_F_CAPPED: only the header of our request is echoed
    offset = _HEADER.size + 4 + (_HEADER.size if capped else (original + 3) & ~3)
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        if kind == _EXT_ACK_TEXT:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
