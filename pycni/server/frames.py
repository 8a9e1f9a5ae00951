"""What travels between launcher and server: one call, a word of agreement, one answer.

The launcher (launcher.c) sends a header of four numbers with its descriptors, then type, environment and stdin. Nothing
is done before both have agreed: the server says ACCEPTED or REFUSED, and the launcher GO.
"""

import os
import socket
import struct
from dataclasses import dataclass, field
from functools import cache

MAGIC = 0x314E4350
ACCEPTED, REFUSED, GO = b"A", b"R", b"G"
STDIN_MAX = 16 << 20
_ENVIRONMENT_MAX = 4 << 20
_TYPE_MAX = 255
_HEADER = struct.Struct("=IIII")
_ANSWER = struct.Struct("=III")
_CREDENTIALS = struct.Struct("=iII")


class FrameError(Exception):
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
    header, descriptors, flags, _ = socket.recv_fds(connection, _HEADER.size, 2)
    try:
        while len(header) < _HEADER.size:
            header += _some(connection, _HEADER.size - len(header))
        magic, type_length, env_length, stdin_length = _HEADER.unpack(header)
        if magic != MAGIC or flags & socket.MSG_CTRUNC:
            raise FrameError("this is no launcher")
        if not 0 < type_length <= _TYPE_MAX or env_length > _ENVIRONMENT_MAX or stdin_length > STDIN_MAX:
            raise FrameError(f"a call of {type_length}, {env_length} and {stdin_length} bytes is too long")
        if not descriptors:
            raise FrameError("the caller's network namespace is missing")
        body = memoryview(_exactly(connection, type_length + env_length + stdin_length))
        name = bytes(body[:type_length]).decode("ascii", errors="replace")
        env = os.fsdecode(bytes(body[type_length : type_length + env_length])).split("\0")
        return Call(
            type=name,
            env=dict(entry.split("=", 1) for entry in env if "=" in entry),
            stdin=bytes(body[type_length + env_length :]),
            host=descriptors[0],
            container=descriptors[1] if len(descriptors) > 1 else None,
        )
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def agreed(connection: socket.socket) -> bool:
    """Say that the call is accepted; whether the launcher still wants it."""
    connection.sendall(ACCEPTED)
    return connection.recv(1) == GO


def send_answer(connection: socket.socket, status: int, stdout: bytes, stderr: bytes) -> None:
    """Send what the launcher is to print, and its exit status."""
    connection.sendall(_ANSWER.pack(status, len(stdout), len(stderr)) + stdout + stderr)


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
        raise FrameError("the call ended before its end")
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
