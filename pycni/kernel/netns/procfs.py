"""The settings of a namespace as a directory, in an instance of procfs that is this thread's own.

In the one at /proc the kernel compares `net/ipv6` with the same name of every namespace that was ever looked at: with a
thousand containers that takes longer than anything else in an ADD. An instance of our own is replaced before it has
seen many; it takes 0.05 ms to make.
"""

import ctypes
import os
import threading
from functools import cache
from typing import Any

_SHARED = "/proc/sys/net"
_TIMES = 32  # that an instance is used
_CLOEXEC, _CREATE = 1, 6  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC, FSCONFIG_CMD_CREATE


@cache
def _libc() -> Any:
    """Return the C library. One-shot processes that need none of its functions do not load ctypes, which takes 2 ms."""
    return ctypes.CDLL(None, use_errno=True)


class _Instance:
    """A procfs that is mounted nowhere; it goes with this object."""

    def __init__(self) -> None:
        """Raises OSError where this process may make none, AttributeError where the C library cannot."""
        context = _done(_libc().fsopen(b"proc", _CLOEXEC))
        try:
            _done(_libc().fsconfig(context, _CREATE, None, None, 0))
            self.fd = _done(_libc().fsmount(context, _CLOEXEC, 0))
        finally:
            os.close(context)
        self.left = _TIMES

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class _Own(threading.local):
    instance: _Instance | None = None
    impossible = False


_own = _Own()


def settings_directory(family: str) -> int:
    """A descriptor of the directory /proc/sys/net/FAMILY of the namespace that this thread is in. Raises OSError."""
    flags, instance = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, _instance()
    if instance is None:
        return os.open(f"{_SHARED}/{family}", flags)
    return os.open(f"sys/net/{family}", flags, dir_fd=instance.fd)


def _instance() -> _Instance | None:
    """One that has not seen many namespaces; None where there can be none, as for root of a user namespace."""
    if (_own.instance is None or not _own.instance.left) and not _own.impossible:
        try:
            _own.instance = _Instance()
        except (OSError, AttributeError):
            _own.instance, _own.impossible = None, True
    if _own.instance is not None:
        _own.instance.left -= 1
    return _own.instance


def _done(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
