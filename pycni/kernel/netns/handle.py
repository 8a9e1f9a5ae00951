"""An open handle to a network namespace. Netlink sockets, sysctls and firewall contexts are opened through it."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pycni.kernel.journal import Journal
from pycni.kernel.netns import handle_cache
from pycni.protocol.errors import CniError, Code

if TYPE_CHECKING:
    from pycni.kernel.netlink.rtnetlink import RouteSocket

T = TypeVar("T", bound=handle_cache.Closable)

OWN = "/proc/thread-self/ns/net"
_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_GET_TYPE = 0xB703  # NS_GET_NSTYPE


class NetnsHandle:
    """A handle that keeps a network namespace alive while it is open, even if its path is removed.

    `identity` is the device and inode of the namespace: no two namespaces that exist at the same time have the same.
    """

    def __init__(self, path: str, journal: Journal, descriptor: int | None = None) -> None:
        """Open the namespace at `path`. Raises CniError, code 8, if it is not a network namespace.

        If the caller has opened it already, `descriptor` is used instead. The caller closes it, after this handle.
        """
        self.path = path
        self.journal = journal
        self._is_borrowed = descriptor is not None
        self._fd = _open(path) if descriptor is None else descriptor
        if not _is_network(self._fd):
            self._close_descriptor()
            raise CniError(
                f'failed to open netns "{path}": it is not a network namespace',
                code=Code.INVALID_NETNS,
                details="CNI_NETNS names a namespace file such as /run/netns/NAME or /proc/PID/ns/net",
            )
        self.identity = _identity(os.fstat(self._fd))
        self._resources: dict[handle_cache.Factory, Any] = {}

    def close(self) -> None:
        """Close the handle and the resources that were opened through it."""
        self.__dict__.pop("netlink", None)
        while self._resources:
            self._resources.popitem()[1].close()
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._fd >= 0 and not self._is_borrowed:
            os.close(self._fd)
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor of the namespace."""
        return self._fd

    @cached_property
    def cookie(self) -> str:
        """The boot id and the kernel's cookie of the namespace, which no other namespace ever has.

        `identity` and path may be those of another namespace once this one is gone. Before Linux 5.14, which has no
        cookie, the identity is used.
        """
        with self.enter(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                (cookie,) = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
            except OSError:  # before Linux 5.14
                cookie = ".".join(map(str, self.identity))
        with open(_BOOT_ID, "rb") as boot_id:  # noqa: PTH123 - pathlib takes 2 ms to load
            return f"{boot_id.read().decode().strip()}/{cookie}"

    def get_or_open(self, factory: "Callable[[NetnsHandle], T]") -> T:
        """Return the resource that `factory` opens in the namespace; open it on first use.

        It is closed with this handle, or stays open in the thread's cache, see handle_cache.
        """
        resources = handle_cache.cached_at(self.identity)
        if resources is None:
            resources = self._resources
        if factory not in resources:
            resources[factory] = factory(self)
        resource: T = resources[factory]
        return resource

    def enter(self) -> "_Entry":
        """Return a context manager that moves this thread into the namespace, to open a socket or a file there."""
        return _Entry(self)

    def enter_permanently(self) -> None:
        """Move this thread into the namespace. Raises OSError."""
        _setns(self._fd)

    @cached_property
    def netlink(self) -> "RouteSocket":
        """The rtnetlink socket, opened on first use: pyroute2 takes 25 ms to load."""
        return self.get_or_open(new_route_socket)


class _Entry:
    """Moves a thread into a namespace and back. It does nothing if the thread is in that namespace already."""

    __slots__ = ("_before", "_netns")

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns
        self._before = -1

    def __enter__(self) -> None:
        if _own_identity() == self._netns.identity:
            return
        before = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._netns.fd)
        except OSError:
            os.close(before)
            raise
        self._before = before

    def __exit__(self, *_: object) -> None:
        if self._before < 0:
            return
        try:
            _setns(self._before)
        finally:
            os.close(self._before)


def new_route_socket(netns: NetnsHandle) -> "RouteSocket":
    """Open an rtnetlink socket in the namespace. The caller closes it."""
    from pycni.kernel.netlink.rtnetlink import RouteSocket

    with netns.enter():
        return RouteSocket()


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return the device and the inode of the namespace."""
    return status.st_dev, status.st_ino


def _own_identity() -> tuple[int, int]:
    """Return the identity of the namespace that this thread is in."""
    return _identity(os.stat(OWN))  # noqa: PTH116 - pathlib would cost more than the call


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        cause = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        raise CniError(f'failed to open netns "{path}": {cause}', code=Code.INVALID_NETNS) from None


def _is_network(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _GET_TYPE) == _NEWNET
    except OSError as error:
        if error.errno == errno.ENOTTY:  # not a namespace
            return False
        raise


def is_own_namespace(namespace: str | int) -> bool:
    """Return whether a path or descriptor is that of the namespace that this thread is in.

    Return False if it cannot be read. See docs/reference/protocol.md#own-namespace.
    """
    try:
        return _identity(os.stat(namespace)) == _own_identity()  # noqa: PTH116 - pathlib would cost more than the call
    except (OSError, ValueError):
        return False


@cache
def c_library() -> Any:
    """Return the C library. It is loaded on first use: ctypes takes 2 ms."""
    return ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if c_library().setns(fd, _NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code).lower()}")


def move_thread_to(fd: int) -> None:
    """Move this thread into the network namespace, unless it is there already. Raises OSError."""
    if _identity(os.fstat(fd)) != _own_identity():
        _setns(fd)


def unshare_network() -> None:
    """Move this thread into a new, empty network namespace. Raises OSError."""
    if c_library().unshare(_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code).lower()}")
