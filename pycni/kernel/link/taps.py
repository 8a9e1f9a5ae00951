"""Taps: links whose frames a process reads and writes, such as a virtual machine's."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pycni.kernel.link import creation
from pycni.kernel.link.links import Link
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError, Code

_TUN = Path("/dev/net/tun")
_EXEC_LABEL = Path("/proc/thread-self/attr/exec")
_SET_INTERFACE, _SET_PERSISTENT, _SET_USER, _SET_GROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_TAP, _MULTI_QUEUE, _NO_PACKET_INFORMATION, _EXCLUSIVE = 0x2, 0x100, 0x1000, 0x8000
_REQUEST = struct.Struct("=16sH22x")  # struct ifreq


@dataclass(frozen=True)
class Tap:
    """Who may open a tap, and how."""

    user: int | None = None  # root alone, if there is no group either
    group: int | None = None
    multi_queue: bool = False
    selinux_context: str = ""


def create(container: NetnsHandle, name: str, owner: Owner, tap: Tap, attributes: Attributes) -> Link:
    """Make a tap that stays without a process, still down. Whoever opens it says how its frames begin."""

    def make() -> None:
        with container.entered():
            if tap.selinux_context:
                _make_labelled(owner.host_ifname, tap)
            else:
                _make(owner.host_ifname, tap)

    return creation.make_and_label(container, name, owner, f"tap {name}", make, late=attributes)


def probe() -> None:
    """Raise CniError, code 50, unless taps can be made."""
    try:
        os.close(_opened())
    except OSError as error:
        raise CniError(
            f"no taps can be made: {_TUN}: {os.strerror(error.errno or 0).lower()}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="the plugin needs the kernel's module tun and its device",
        ) from None


def _opened() -> int:
    return os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)


def _make(name: str, tap: Tap) -> None:
    flags = _TAP | _NO_PACKET_INFORMATION | _EXCLUSIVE | (_MULTI_QUEUE if tap.multi_queue else 0)
    try:
        descriptor = _opened()
        try:
            fcntl.ioctl(descriptor, _SET_INTERFACE, _REQUEST.pack(name.encode(), flags))
            if tap.user is not None:
                fcntl.ioctl(descriptor, _SET_USER, _signed(tap.user))
            if tap.group is not None:
                fcntl.ioctl(descriptor, _SET_GROUP, _signed(tap.group))
            fcntl.ioctl(descriptor, _SET_PERSISTENT, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CniError(f"cannot create a tap: {os.strerror(error.errno or 0).lower()}") from None


def _signed(number: int) -> int:
    """The number of a user or group as ioctl takes it: with the same 32 bits."""
    return number - (1 << 32) if number >> 31 else number


def _make_labelled(name: str, tap: Tap) -> None:
    """Let a process with the context make it: a tap has the context of its maker."""
    command = ["ip", "tuntap", "add", "dev", name, "mode", "tap", *(["multi_queue"] if tap.multi_queue else [])]
    command += ["user", str(tap.user)] if tap.user is not None else []
    command += ["group", str(tap.group)] if tap.group is not None else []
    with _next_process_labelled(tap.selinux_context):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CniError(f"cannot create a tap: {done.stderr.strip()}", details=f"asked was: {' '.join(command)}")


@contextmanager
def _next_process_labelled(context: str) -> Iterator[None]:
    """Whatever this thread starts runs in the SELinux context."""
    try:
        _EXEC_LABEL.write_text(f"{context}\0")
    except OSError as error:
        raise CniError(
            f'cannot use the SELinux context "{context}": {os.strerror(error.errno or 0).lower()}',
            details="selinuxContext is for hosts where SELinux is enabled and its policy knows the context",
        ) from None
    try:
        yield
    finally:
        _EXEC_LABEL.write_text("")
