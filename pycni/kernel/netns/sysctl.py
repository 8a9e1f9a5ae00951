"""The attribute `sysctls` of a namespace: kernel settings, by their path under /proc/sys/net."""

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from functools import partial

from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.operations import NetnsOperations
from pycni.kernel.netns.procfs import settings_directory
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError, Code

log = logging.getLogger(__name__)

_ROOT = "/proc/sys/net"
_ALWAYS_THERE = "core/somaxconn"  # a sysctl that every namespace has
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
# ENOENT: IPv6 is disabled on the host. The others: /proc/sys is read-only.
_NOT_WRITABLE = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS})


class Sysctls(NetnsOperations):
    """The sysctls of a network namespace."""

    __slots__ = ()

    def ensure_forwarding(self, cidrs: Iterable[Cidr]) -> None:
        """Enable IP forwarding for the families of these addresses; it stays enabled. Raises CniError."""
        ensure(self._netns, {_FORWARDING[version]: "1" for version in sorted({cidr.version for cidr in cidrs})})

    def set(self, wanted: Mapping[str, str]) -> None:
        """Set each sysctl (a path under /proc/sys/net); a failed ADD restores the former values. Raises CniError."""
        for setting, value in wanted.items():
            old = _read_if_allowed(self._netns, setting)
            if old is not None and old.split() == value.split():
                continue
            undo = None if old is None else partial(_write, self._netns, setting, old)
            what = f"set sysctl net/{setting} to {value}"
            self._netns.journal.change(what, partial(_write, self._netns, setting, value), undo, atomic=True)

    def expect(self, wanted: Mapping[str, str]) -> None:
        """Raise CniError for the first sysctl with another value. The kind of white space between words is ignored."""
        for setting, value in wanted.items():
            found = _read_if_allowed(self._netns, setting)
            if found is None:
                raise CniError(f"sysctl net/{setting} should be {value}, but cannot be read")
            if found.split() != value.split():
                raise CniError(f"sysctl net/{setting} should be {value}, but is {' '.join(found.split())}")

    def expect_writable(self) -> None:
        """Raise CniError, code 50, if this process may not change sysctls."""
        with self._netns.enter():
            if not os.access(f"{_ROOT}/{_ALWAYS_THERE}", os.W_OK):
                raise CniError(
                    f"sysctls cannot be set: {_ROOT} is not writable",
                    code=Code.PLUGIN_NOT_AVAILABLE,
                    details="the plugin needs root's rights and a /proc/sys that is not mounted read-only",
                )


def link_setting(family: int, link: str, name: str) -> str:
    """Return the path of the sysctl `name` of one link; `family` is 4 or 6."""
    return f"ipv{family}/conf/{link}/{name}"


def read(netns: NetnsHandle, setting: str) -> str | None:
    """Return the value of the sysctl, or None if the kernel has no such sysctl."""
    with netns.enter():
        return netns.get_or_open(_Settings).read(setting)


def ensure(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Set each sysctl; the values stay even if the call fails. Raises CniError."""
    with netns.enter():
        settings = netns.get_or_open(_Settings)
        for setting, value in wanted.items():
            if settings.read(setting) != value:
                netns.journal.change(f"set sysctl net/{setting} to {value}", partial(settings.write, setting, value))


def prefer(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Set each sysctl that the kernel has and lets us write; log the others."""
    with netns.enter():
        settings = netns.get_or_open(_Settings)
        for setting, value in wanted.items():
            try:
                settings.write(setting, value)
            except CniError as error:
                log.debug("%s", error)


class _Settings:
    """Open directories of the sysctls of a namespace. Its methods must be called by a thread in the namespace."""

    def __init__(self, _netns: NetnsHandle) -> None:
        self._directories: dict[str, int] = {}

    def close(self) -> None:
        """Close the directories."""
        for fd in self._directories.values():
            os.close(fd)

    def read(self, setting: str) -> str | None:
        """Return the value of the sysctl, or None if the kernel has no such sysctl."""
        try:
            fd = self._open(setting, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(fd, 4096).decode().strip()
        finally:
            os.close(fd)

    def write(self, setting: str, value: str) -> None:
        """Set the sysctl. Raises CniError."""
        try:
            fd = self._open(setting, os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            remedy = "is this kernel built with it, and /proc/sys writable?" if error.errno in _NOT_WRITABLE else ""
            cause = os.strerror(error.errno or 0).lower()
            raise CniError(f"cannot set sysctl net/{setting} to {value}: {cause}", details=remedy) from None

    def _open(self, setting: str, flags: int) -> int:
        family, _, rest = setting.partition("/")
        if family not in self._directories:
            self._directories[family] = settings_directory(family)
        return os.open(rest, flags | os.O_CLOEXEC, dir_fd=self._directories[family])


def _read_if_allowed(netns: NetnsHandle, setting: str) -> str | None:
    """Return the value of the sysctl, or None if it does not exist or is write-only."""
    try:
        return read(netns, setting)
    except OSError:
        return None


def _write(netns: NetnsHandle, setting: str, value: str) -> None:
    with netns.enter():
        netns.get_or_open(_Settings).write(setting, value)
