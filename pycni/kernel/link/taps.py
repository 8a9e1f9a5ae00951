"""The attribute `taps` of a namespace: links whose frames a process reads and writes, such as a virtual machine."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pycni.kernel.link import creation
from pycni.kernel.link.link import Link
from pycni.kernel.netns.operations import NetnsOperations
from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError, Code

_TUN = Path("/dev/net/tun")
_EXEC_LABEL = Path("/proc/thread-self/attr/exec")
_SET_INTERFACE, _SET_PERSISTENT, _SET_USER, _SET_GROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_TAP, _MULTI_QUEUE, _NO_PACKET_INFORMATION, _EXCLUSIVE = 0x2, 0x100, 0x1000, 0x8000
_REQUEST = struct.Struct("=16sH22x")  # struct ifreq


@dataclass(frozen=True)
class Tap:
    """Access rights and queues of a tap."""

    user: int | None = None  # only root if `group` is None too
    group: int | None = None
    multi_queue: bool = False
    selinux_context: str = ""


class Taps(NetnsOperations):
    """The taps of a network namespace."""

    __slots__ = ()

    def create(self, name: str, owner: Owner, tap: Tap, *, mtu: int = 0, mac: str = "") -> Link:
        """Create a persistent tap that carries the owner's label, down, and return it. Raises CniError.

        `mtu` is in bytes, 0 is the kernel's default. The program that opens the tap chooses the format of the frames.
        """

        def create() -> None:
            with self._netns.enter():
                if tap.selinux_context:
                    _create_in_context(owner.host_ifname, tap)
                else:
                    _create(owner.host_ifname, tap)

        late = creation.size_and_mac(mtu, mac)
        return creation.create_labelled(self._netns, name, owner, f"tap {name}", create, late)

    def expect_supported(self) -> None:
        """Raise CniError, code 50, unless this process can create taps."""
        try:
            os.close(_open())
        except OSError as error:
            raise CniError(
                f"no taps can be made: {_TUN}: {os.strerror(error.errno or 0).lower()}",
                code=Code.PLUGIN_NOT_AVAILABLE,
                details="the plugin needs the kernel's module tun and its device",
            ) from None


def _open() -> int:
    return os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)


def _create(name: str, tap: Tap) -> None:
    flags = _TAP | _NO_PACKET_INFORMATION | _EXCLUSIVE | (_MULTI_QUEUE if tap.multi_queue else 0)
    try:
        descriptor = _open()
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
    """Return the id of a user or group as the signed number with the same 32 bits, which ioctl needs."""
    return number - (1 << 32) if number >> 31 else number


def _create_in_context(name: str, tap: Tap) -> None:
    """Create the tap in a process with the SELinux context: a tap gets the context of its creator."""
    command = ["ip", "tuntap", "add", "dev", name, "mode", "tap", *(["multi_queue"] if tap.multi_queue else [])]
    command += ["user", str(tap.user)] if tap.user is not None else []
    command += ["group", str(tap.group)] if tap.group is not None else []
    with _selinux_exec_context(tap.selinux_context):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CniError(f"cannot create a tap: {done.stderr.strip()}", details=f"the command was: {' '.join(command)}")


@contextmanager
def _selinux_exec_context(context: str) -> Iterator[None]:
    """Run the processes that this thread starts in the SELinux context."""
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
