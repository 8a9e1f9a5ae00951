"""The protocol between launcher and server: one connection for each call.

The launcher (launcher.c) sends a header of four numbers together with its descriptors, then the plugin type, the
environment and stdin. The server sends ACCEPTED, or else REFUSED or WRONG_NAMESPACES. If the launcher has not withdrawn
the call by then, the server executes it and sends DONE with the answer. launcher.c describes how both sides agree on
who executes a call.

A header with MAGIC_STATUS and zeros asks for the status of the server, which is a JSON object.
"""

import os
import socket
import struct
from dataclasses import dataclass, field

MAGIC, MAGIC_ON_DEMAND, MAGIC_STATUS = 0x324E4350, 0x334E4350, 0x534E4350
ACCEPTED, REFUSED, WRONG_NAMESPACES, DONE = b"A", b"R", b"N", b"D"
_FIRST_READ = 1 << 16  # bytes; most calls are shorter
_LONGEST_READ = 1 << 20
STDIN_MAX = 16 << 20
_ENVIRONMENT_MAX = 4 << 20
_TYPE_MAX = 255
_HEADER = struct.Struct("=IIII")
_ANSWER = struct.Struct("=III")


class WireError(Exception):
    """The data received is not a call."""


@dataclass(frozen=True)
class Call:
    """One call of a plugin.

    `host` and `container` are descriptors of network namespaces; `mount` is one of the caller's mount namespace, which
    only on-demand servers receive.
    """

    type: str
    env: dict[str, str]
    stdin: bytes = field(repr=False)
    host: int
    container: int | None
    mount: int | None = None

    @property
    def needs_files(self) -> bool:
        """Whether it uses files or namespaces. VERSION does not; libcni sends "dummy" for all paths with it."""
        return self.env.get("CNI_COMMAND", "") not in ("", "VERSION")

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.host, self.container, self.mount):
            if descriptor is not None:
                os.close(descriptor)


class StatusRequest:
    """A request for the status of the server."""


def receive(connection: socket.socket) -> Call | StatusRequest:
    """Read one call, or a request for the status, from a connection.

    Raise WireError if the data is not a call, OSError if the connection fails or times out.
    """
    data, descriptors, flags, _ = socket.recv_fds(connection, _FIRST_READ, 3, socket.MSG_CMSG_CLOEXEC)
    try:
        if len(data) < _HEADER.size:
            data += _receive_exactly(connection, _HEADER.size - len(data))
        magic, type_length, env_length, stdin_length = _HEADER.unpack_from(data)
        if magic == MAGIC_STATUS and not descriptors and len(data) == _HEADER.size:
            return StatusRequest()
        if magic not in (MAGIC, MAGIC_ON_DEMAND) or flags & socket.MSG_CTRUNC:
            raise WireError("the peer is not a launcher of this version")
        if not 0 < type_length <= _TYPE_MAX or env_length > _ENVIRONMENT_MAX or stdin_length > STDIN_MAX:
            raise WireError(
                f"the call is too long: type {type_length}, environment {env_length}, stdin {stdin_length} bytes"
            )
        on_demand = magic == MAGIC_ON_DEMAND
        if len(descriptors) not in ((2, 3) if on_demand else (1, 2)):
            raise WireError(f"{len(descriptors)} descriptors came with the call")
        env_begins = _HEADER.size + type_length
        stdin_begins = env_begins + env_length
        end = stdin_begins + stdin_length
        if len(data) > end:
            raise WireError("there is data after the end of the call")
        data += _receive_exactly(connection, end - len(data))
        env = os.fsdecode(data[env_begins:stdin_begins]).split("\0")
        return Call(
            type=data[_HEADER.size : env_begins].decode("ascii", errors="replace"),
            env=dict(entry.split("=", 1) for entry in env if "=" in entry),
            stdin=data[stdin_begins:],
            host=descriptors[0],
            mount=descriptors[1] if on_demand else None,
            container=descriptors[1 + on_demand] if len(descriptors) > 1 + on_demand else None,
        )
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def accept_call(connection: socket.socket) -> bool:
    """Send ACCEPTED on the blocking connection. Return False if the launcher has withdrawn the call before."""
    connection.sendall(ACCEPTED)
    try:
        return bool(connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except BlockingIOError:
        return True


def send_answer(connection: socket.socket, status: int, stdout: bytes, stderr: bytes) -> None:
    """Send the exit status of the launcher, and what it prints to stdout and stderr."""
    connection.sendall(DONE + _ANSWER.pack(status, len(stdout), len(stderr)) + stdout + stderr)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    chunks = []
    while length:
        chunk = connection.recv(min(length, _LONGEST_READ))
        if not chunk:
            raise WireError("the connection ended in the middle of the call")
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)
