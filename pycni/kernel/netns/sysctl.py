"""Kernel settings of a namespace, by their path under /proc/sys/net."""

import errno
import logging
import os
from collections.abc import Mapping
from functools import partial

from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.procfs import settings_directory
from pycni.protocol.errors import CniError, Code

log = logging.getLogger(__name__)

_ROOT = "/proc/sys/net"
_EVERYWHERE = "core/somaxconn"  # every namespace has it
# What a host lacks where IPv6 is off (ENOENT), and what a container's read-only /proc refuses.
_OUT_OF_REACH = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS})


def link_setting(family: int, link: str, name: str) -> str:
    """The setting `name` of one link; `family` is 4 or 6."""
    return f"ipv{family}/conf/{link}/{name}"


class _Settings:
    """The settings of a namespace, for whoever is in it."""

    def __init__(self, _netns: NetnsHandle) -> None:
        self._directories: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the directories."""
        for fd in self._directories.values():
            os.close(fd)

    def read(self, setting: str) -> str | None:
        """Its value, or None if the kernel has no such setting."""
        try:
            fd = self._open(setting, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(fd, 4096).decode().strip()
        finally:
            os.close(fd)

    def write(self, setting: str, value: str) -> None:
        """Give it a value. Raises CniError."""
        try:
            fd = self._open(setting, os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            remedy = "is this kernel built with it, and /proc/sys writable?" if error.errno in _OUT_OF_REACH else ""
            cause = os.strerror(error.errno or 0).lower()
            raise CniError(f"cannot set sysctl net/{setting} to {value}: {cause}", details=remedy) from None

    def _open(self, setting: str, flags: int) -> int:
        family, _, rest = setting.partition("/")
        if family not in self._directories:
            self._directories[family] = settings_directory(family)
        return os.open(rest, flags | os.O_CLOEXEC, dir_fd=self._directories[family])


def read(netns: NetnsHandle, setting: str) -> str | None:
    """Its value, or None if the kernel has no such setting."""
    with netns.entered():
        return netns.opened(_Settings).read(setting)


def ensure(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Give each setting its value; raises CniError for the first that cannot have it."""
    with netns.entered():
        settings = netns.opened(_Settings)
        for setting, value in wanted.items():
            if settings.read(setting) != value:
                netns.journal.change(f"set sysctl net/{setting} to {value}", partial(settings.write, setting, value))


def change(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Give each setting its value; it is put back if the call fails. Raises CniError."""
    for setting, value in wanted.items():
        old = _read_if_allowed(netns, setting)
        if old is not None and old.split() == value.split():
            continue
        undo = None if old is None else partial(_write, netns, setting, old)
        netns.journal.change(f"set sysctl net/{setting} to {value}", partial(_write, netns, setting, value), undo)


def expect(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Raise CniError for the first setting that has another value; blanks and tabs between words are the same."""
    for setting, value in wanted.items():
        found = _read_if_allowed(netns, setting)
        if found is None:
            raise CniError(f"sysctl net/{setting} should be {value}, but cannot be read")
        if found.split() != value.split():
            raise CniError(f"sysctl net/{setting} should be {value}, but is {' '.join(found.split())}")


def probe(netns: NetnsHandle) -> None:
    """Raise CniError, code 50, if this process may not change settings."""
    with netns.entered():
        if not os.access(f"{_ROOT}/{_EVERYWHERE}", os.W_OK):
            raise CniError(
                f"sysctls cannot be set: {_ROOT} is not writable",
                code=Code.PLUGIN_NOT_AVAILABLE,
                details="the plugin needs root's rights and a /proc/sys that is not mounted read-only",
            )


def prefer(netns: NetnsHandle, wanted: Mapping[str, str]) -> None:
    """Give each setting its value where the kernel has it and lets us; what stays as it was is logged."""
    with netns.entered():
        settings = netns.opened(_Settings)
        for setting, value in wanted.items():
            try:
                settings.write(setting, value)
            except CniError as error:
                log.debug("%s", error)


def _read_if_allowed(netns: NetnsHandle, setting: str) -> str | None:
    """Its value, or None if there is none to read: some settings can only be written."""
    try:
        return read(netns, setting)
    except OSError:
        return None


def _write(netns: NetnsHandle, setting: str, value: str) -> None:
    with netns.entered():
        netns.opened(_Settings).write(setting, value)
