"""What travels between launcher and server: one call, a word of agreement, one answer.

The launcher (launcher.c) sends a header of four numbers with its descriptors, then type, environment and stdin. The
server says ACCEPTED or REFUSED, and then, unless the launcher has changed its mind before, does it and says DONE. How
they agree is told in launcher.c.
"""

import os
import socket
import struct
from dataclasses import dataclass, field
from functools import cache

MAGIC = 0x324E4350
ACCEPTED, REFUSED, DONE = b"A", b"R", b"D"
_AT_ONCE = 1 << 16  # bytes: more than most calls have
STDIN_MAX = 16 << 20
_ENVIRONMENT_MAX = 4 << 20
_TYPE_MAX = 255
_HEADER = struct.Struct("=IIII")
_ANSWER = struct.Struct("=III")
_CREDENTIALS = struct.Struct("=iII")


class WireError(Exception):
    """What came is no call."""


@dataclass(frozen=True)
class Call:
    """A plugin's call: its type, environment, stdin, and the namespaces of host and container as descriptors."""

    type: str
    env: dict[str, str]
    stdin: bytes = field(repr=False)
    host: int
    container: int | None

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.host)
        if self.container is not None:
            os.close(self.container)


def receive(connection: socket.socket) -> Call:
    """Read one call. Raises FrameError for what is none, OSError for a connection that ends or takes too long."""
    data, descriptors, flags, _ = socket.recv_fds(connection, _AT_ONCE, 2)
    try:
        if len(data) < _HEADER.size:
            data += _exactly(connection, _HEADER.size - len(data))
        magic, type_length, env_length, stdin_length = _HEADER.unpack_from(data)
        if magic != MAGIC or flags & socket.MSG_CTRUNC:
            raise WireError("this is no launcher")
        if not 0 < type_length <= _TYPE_MAX or env_length > _ENVIRONMENT_MAX or stdin_length > STDIN_MAX:
            raise WireError(f"a call of {type_length}, {env_length} and {stdin_length} bytes is too long")
        if not descriptors:
            raise WireError("the caller's network namespace is missing")
        env_begins = _HEADER.size + type_length
        stdin_begins = env_begins + env_length
        end = stdin_begins + stdin_length
        if len(data) > end:
            raise WireError("there is more than a call")
        data += _exactly(connection, end - len(data))
        env = os.fsdecode(data[env_begins:stdin_begins]).split("\0")
        return Call(
            type=data[_HEADER.size : env_begins].decode("ascii", errors="replace"),
            env=dict(entry.split("=", 1) for entry in env if "=" in entry),
            stdin=data[stdin_begins:],
            host=descriptors[0],
            container=descriptors[1] if len(descriptors) > 1 else None,
        )
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def agreed(connection: socket.socket) -> bool:
    """Say on the blocking connection that the call is accepted; whether the launcher still wants it."""
    connection.sendall(ACCEPTED)
    try:
        return bool(connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except BlockingIOError:
        return True


def send_answer(connection: socket.socket, status: int, stdout: bytes, stderr: bytes) -> None:
    """Send what the launcher is to print, and its exit status."""
    connection.sendall(DONE + _ANSWER.pack(status, len(stdout), len(stderr)) + stdout + stderr)


def _exactly(connection: socket.socket, length: int) -> bytes:
    chunks = []
    while length:
        chunk = _some(connection, length)
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _some(connection: socket.socket, length: int) -> bytes:
    chunk = connection.recv(min(length, 1 << 20))
    if not chunk:
        raise WireError("the call ended before its end")
    return chunk


def may_be_served(connection: socket.socket) -> bool:
    """Whether the caller is root or who we are, and paths mean the same to it as to us."""
    size = _CREDENTIALS.size
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid not in (0, os.geteuid()) or pid <= 0:
        return False
    try:
        return all(os.stat(f"/proc/{pid}/ns/{kind}").st_ino == _own(kind) for kind in ("mnt", "user"))
    except OSError:
        return False


@cache
def _own(kind: str) -> int:
    return os.stat(f"/proc/self/ns/{kind}").st_ino
