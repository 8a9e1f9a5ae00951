"""Kernel settings of a namespace, by their path under /proc/sys/net."""

import errno
import logging
import os
from collections.abc import Mapping
from functools import partial

from pycni.kernel.door import Door
from pycni.protocol.errors import CniError, Code

log = logging.getLogger(__name__)

_ROOT = "/proc/sys/net"
_EVERYWHERE = "core/somaxconn"  # every namespace has it
# What a host lacks where IPv6 is off (ENOENT), and what a container's read-only /proc refuses.
_OUT_OF_REACH = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS})


def link_setting(family: int, link: str, name: str) -> str:
    """The setting `name` of one link; `family` is 4 or 6."""
    return f"ipv{family}/conf/{link}/{name}"


def read(door: Door, setting: str) -> str | None:
    """Its value, or None if the kernel has no such setting."""
    with door.entered():
        return _read(setting)


def ensure(door: Door, settings: Mapping[str, str]) -> None:
    """Give each setting its value; raises CniError for the first that cannot have it."""
    with door.entered():
        for setting, value in settings.items():
            if _read(setting) == value:
                continue
            door.journal.change(f"set sysctl net/{setting} to {value}", partial(_write, setting, value))


def change(door: Door, settings: Mapping[str, str]) -> None:
    """Give each setting its value; it is put back if the call fails. Raises CniError."""
    for setting, value in settings.items():
        with door.entered():
            old = _read_if_allowed(setting)
        if old is not None and old.split() == value.split():
            continue
        undo = None if old is None else partial(_write_in, door, setting, old)
        door.journal.change(f"set sysctl net/{setting} to {value}", partial(_write_in, door, setting, value), undo)


def expect(door: Door, settings: Mapping[str, str]) -> None:
    """Raise CniError for the first setting that has another value; blanks and tabs between words are the same."""
    for setting, value in settings.items():
        with door.entered():
            found = _read_if_allowed(setting)
        if found is None:
            raise CniError(f"sysctl net/{setting} should be {value}, but cannot be read")
        if found.split() != value.split():
            raise CniError(f"sysctl net/{setting} should be {value}, but is {' '.join(found.split())}")


def probe(door: Door) -> None:
    """Raise CniError, code 50, if this process may not change settings."""
    with door.entered():
        if not os.access(f"{_ROOT}/{_EVERYWHERE}", os.W_OK):
            raise CniError(
                f"sysctls cannot be set: {_ROOT} is not writable",
                code=Code.PLUGIN_NOT_AVAILABLE,
                details="the plugin needs root's rights and a /proc/sys that is not mounted read-only",
            )


def prefer(door: Door, settings: Mapping[str, str]) -> None:
    """Give each setting its value where the kernel has it and lets us; what stays as it was is logged."""
    with door.entered():
        for setting, value in settings.items():
            try:
                _write(setting, value)
            except CniError as error:
                log.debug("%s", error)


def _read_if_allowed(setting: str) -> str | None:
    """Its value, or None if there is none to read: some settings can only be written."""
    try:
        return _read(setting)
    except OSError:
        return None


def _write_in(door: Door, setting: str, value: str) -> None:
    with door.entered():
        _write(setting, value)


def _read(setting: str) -> str | None:
    try:
        fd = os.open(f"{_ROOT}/{setting}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def _write(setting: str, value: str) -> None:
    try:
        fd = os.open(f"{_ROOT}/{setting}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        remedy = "is this kernel built with it, and /proc/sys writable?" if error.errno in _OUT_OF_REACH else ""
        cause = os.strerror(error.errno or 0).lower()
        raise CniError(f"cannot set sysctl net/{setting} to {value}: {cause}", details=remedy) from None
