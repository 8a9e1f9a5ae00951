"""Directories of sysctls, in a procfs instance that belongs to the thread.

In the instance at /proc, the kernel keeps entries such as `net/ipv6` of every namespace that was looked at, and
searches all of them. With a thousand containers this takes longer than the rest of an ADD. So each thread has an
instance of its own and replaces it after some uses. To create one takes 0.05 ms.
"""

import ctypes
import os
import threading

from pycni.kernel.netns.handle import c_library

_COMMON_ROOT = "/proc/sys/net"
_MAX_USES = 32
_CLOEXEC, _CREATE = 1, 6  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC, FSCONFIG_CMD_CREATE


class _Instance:
    """A procfs instance that is not mounted anywhere. It is gone with this object."""

    def __init__(self) -> None:
        """Create it. Raises OSError if this process may not, AttributeError if the C library is too old."""
        context = _check(c_library().fsopen(b"proc", _CLOEXEC))
        try:
            _check(c_library().fsconfig(context, _CREATE, None, None, 0))
            self.fd = _check(c_library().fsmount(context, _CLOEXEC, 0))
        finally:
            os.close(context)
        self.uses_left = _MAX_USES

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class _PerThread(threading.local):
    instance: _Instance | None = None
    unsupported = False


_per_thread = _PerThread()


def settings_directory(family: str) -> int:
    """Return a descriptor of /proc/sys/net/FAMILY in the namespace that this thread is in. Raises OSError."""
    flags, instance = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, _instance()
    if instance is None:
        return os.open(f"{_COMMON_ROOT}/{family}", flags)
    return os.open(f"sys/net/{family}", flags, dir_fd=instance.fd)


def _instance() -> _Instance | None:
    """Return the instance of this thread; None if it cannot have one, for example as root of a user namespace."""
    if (_per_thread.instance is None or not _per_thread.instance.uses_left) and not _per_thread.unsupported:
        try:
            _per_thread.instance = _Instance()
        except (OSError, AttributeError):
            _per_thread.instance, _per_thread.unsupported = None, True
    if _per_thread.instance is not None:
        _per_thread.instance.uses_left -= 1
    return _per_thread.instance


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
