"""Which callers a server may execute calls for, and how."""

import os
import re
import socket
from enum import Enum, auto
from functools import cache
from pathlib import Path

from pycni.sdk.unix_socket import peer_credentials
from pycni.server.wire import Call

_EFFECTIVE = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)


class Access(Enum):
    """The decision about one call."""

    REFUSED = auto()
    WRONG_NAMESPACES = auto()  # another server may serve the caller
    THREAD = auto()  # a thread of the server executes the call
    FORK = auto()  # a forked process executes it in the caller's mount namespace


def access(connection: socket.socket, call: Call, *, can_fork: bool) -> Access:
    """Return how the server may execute the call.

    The caller must be root or run as the server's user. It must be in the server's user namespace, since user ids and
    capabilities mean something else in others, and in its mount namespace, since the same path may name another file in
    others. A forked process can enter the caller's mount namespace; then the caller must have the server's capabilities
    too: a container that has got hold of the socket must not gain any.
    """
    peer = peer_credentials(connection)
    if not peer.is_trusted or peer.pid <= 0:
        return Access.REFUSED
    if not call.needs_files:
        return Access.THREAD
    # A relative path is relative to the caller's working directory, which is not the server's.
    paths = [*call.env.get("CNI_PATH", "").split(":"), call.env.get("CNI_NETNS", "") or "/"]
    if not all(path.startswith("/") for path in paths if path):
        return Access.REFUSED
    caller = f"/proc/{peer.pid}"
    try:
        if os.stat(f"{caller}/ns/user").st_ino != _own_namespace("user"):
            return Access.WRONG_NAMESPACES
        mount = os.stat(f"{caller}/ns/mnt") if call.mount is None else os.fstat(call.mount)
        if mount.st_ino == _own_namespace("mnt"):
            return Access.THREAD
        if not can_fork or call.mount is None or os.stat(f"{caller}/ns/pid").st_ino != _own_namespace("pid"):
            return Access.WRONG_NAMESPACES
        own = _capabilities("/proc/self")
        return Access.FORK if own & _capabilities(caller) == own else Access.REFUSED
    except OSError:
        return Access.WRONG_NAMESPACES


@cache
def _own_namespace(kind: str) -> int:
    return os.stat(f"/proc/self/ns/{kind}").st_ino


def _capabilities(process: str) -> int:
    """Return the effective capabilities of a process as a bit set. Raises OSError."""
    found = _EFFECTIVE.search(Path(process, "status").read_text())
    return int(found[1], 16) if found else 0
