"""The namespaces of an on-demand server, which it must not keep alive for its caller.

A server lives longer than the call that has started it. If it stayed in the namespaces of that caller, a network
namespace that was deleted meanwhile would live on with its devices, and so would file systems that were unmounted in
every other mount namespace.
"""

import ctypes
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_NEWNS, _NEWNET = 0x20000, 0x40000000
_MS_SLAVE, _MS_REC = 1 << 19, 1 << 14
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_FIRST_USER_NAMESPACE = 0xEFFFFFFD  # its inode, USER_NS_INIT_INO of linux/nsfs.h
_libc = ctypes.CDLL(None, use_errno=True)


def enter_mount(fd: int) -> None:
    """Move this process, which must have one thread, to a mount namespace. Raises OSError."""
    _check(_libc.setns(fd, _NEWNS), "setns")


def user_namespace() -> int:
    """Return the inode of the user namespace of this process."""
    return os.stat("/proc/self/ns/user").st_ino


def is_first_user_namespace() -> bool:
    """Return whether this process is in the user namespace that the kernel starts with."""
    return user_namespace() == _FIRST_USER_NAMESPACE


def leave_callers(needed: Collection[Path]) -> None:
    """Move this process, which must have one thread, to namespaces that do not belong to the caller.

    These are the mount and network namespaces of process 1, if the files in `needed` are the same there. Otherwise, the
    network namespace is a new one. The mount namespace is a copy without the mounts that are not needed, in a user
    namespace such as that of rootless podman, which creates a mount namespace for each command; else it stays.
    """
    if not _enter_mount_of_process_1(needed) and not is_first_user_namespace():
        _check(_libc.unshare(_NEWNS), "unshare")
        _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount")
        _unmount_all_but(needed)
    try:
        fd = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _NEWNET), "setns")
        finally:
            os.close(fd)
    except OSError:
        _check(_libc.unshare(_NEWNET), "unshare")


def _enter_mount_of_process_1(needed: Collection[Path]) -> bool:
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    before = _identities(needed)
    try:
        try:
            other = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.path.sameopenfile(own, other):
                return True
            enter_mount(other)
        except OSError:
            return False
        finally:
            os.close(other)
        if _identities(needed) == before:
            return True
        enter_mount(own)
        return False
    finally:
        os.close(own)


def _identities(paths: Collection[Path]) -> list[tuple[int, int] | None]:
    return [(path.stat().st_dev, path.stat().st_ino) if path.exists() else None for path in paths]


def _unmount_all_but(needed: Collection[Path]) -> None:
    """Detach the mounts that contain no needed file. Those of a parent user namespace are locked and stay."""
    mounts = [Path(_unescaped(line.split()[4])) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kept = {
        mount for path in (*needed, Path("/proc"), Path("/dev/null")) for mount in _mounts_of(path.resolve(), mounts)
    }
    for mount in reversed(mounts):
        if mount not in kept:
            _libc.umount2(os.fsencode(mount), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def _mounts_of(path: Path, mounts: Sequence[Path]) -> set[Path]:
    """Return the mount points above the path."""
    return {mount for mount in mounts if path.is_relative_to(mount)}


def _unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes of blanks replaced (proc(5))."""
    for code in (r"\040", r"\011", r"\012", r"\134"):
        field = field.replace(code, chr(int(code[1:], 8)))
    return field


def _check(status: int, call: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code).lower()}")
