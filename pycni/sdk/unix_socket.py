"""A socket in the file system for the parts of plugins, and of the server, that live on between calls."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """A listening socket at the path, for root alone; it takes the place of one that nobody listens at any more."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(1024)
        temporary.replace(path)  # whoever waits at the old one is served there to the end
        inode = path.stat().st_ino
        yield listener
        remove_socket(path, inode)
    finally:
        listener.close()
        temporary.unlink(missing_ok=True)


def remove_socket(path: Path, inode: int) -> None:
    """Remove the socket with this inode from the path, unless another one has taken its place."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()
