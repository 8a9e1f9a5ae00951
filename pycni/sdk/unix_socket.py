"""Unix sockets of processes that outlive one call: the resident server and the background services of plugins."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_FIRST_PASSED_DESCRIPTOR = 3  # sd_listen_fds(3)
_UCRED = struct.Struct("=iII")  # struct ucred, unix(7)


class PeerCredentials(NamedTuple):
    """Process, user and group of the process that connected, as the kernel recorded them at connect()."""

    pid: int
    uid: int
    gid: int

    @property
    def is_trusted(self) -> bool:
        """Whether the peer is root or runs as the user of this process."""
        return self.uid in (0, os.geteuid())


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """Return the credentials of the peer (SO_PEERCRED)."""
    return PeerCredentials(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def passed_listener() -> socket.socket | None:
    """Return the listening socket that systemd passed to this process (sd_listen_fds(3)), or None.

    The variables that announce it are removed from the environment, so that child processes do not see them.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    listener = socket.socket(fileno=_FIRST_PASSED_DESCRIPTOR)
    listener.set_inheritable(False)
    return listener


def pass_listener_on(listener: socket.socket) -> None:
    """Make `passed_listener` return this socket in the program that replaces this one by exec()."""
    os.dup2(listener.fileno(), _FIRST_PASSED_DESCRIPTOR)
    os.set_inheritable(_FIRST_PASSED_DESCRIPTOR, True)  # dup2() changes nothing if both descriptors are the same
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}


@contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Listen at the path with mode 0600, and remove the socket at the end.

    A socket that exists there is replaced by rename: callers that are already connected to it keep their connection.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(1024)
        temporary.replace(path)
        inode = path.stat().st_ino
        yield listener
        remove_socket(path, inode)
    finally:
        listener.close()
        temporary.unlink(missing_ok=True)


def remove_socket(path: Path, inode: int) -> None:
    """Remove the socket at the path if it still has this inode, i.e. if no other process has replaced it."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()
