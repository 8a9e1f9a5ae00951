"""A network namespace held open: the way in for netlink sockets, sysctls and firewall contexts."""

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
_GET_TYPE = 0xB703  # ioctl: which kind of namespace a descriptor is


class NetnsHandle:
    """A namespace that stays reachable while this is open, whatever becomes of its path.

    Its `identity`, device and inode, tells it from every other.
    """

    def __init__(self, path: str, journal: Journal, descriptor: int | None = None) -> None:
        """Raises CniError, code 8, if there is no network namespace at `path`.

        Where the caller has opened it, its `descriptor` counts instead; it stays the caller's, and open until then.
        """
        self.path = path
        self.journal = journal
        self._is_lent = descriptor is not None
        self._fd = _open(path) if descriptor is None else descriptor
        if not _is_network(self._fd):
            self._let_go()
            raise CniError(
                f'failed to open netns "{path}": it is not a network namespace',
                code=Code.INVALID_NETNS,
                details="CNI_NETNS names a namespace file such as /run/netns/NAME or /proc/PID/ns/net",
            )
        self.identity = _identity(os.fstat(self._fd))
        self._things: dict[handle_cache.Make, Any] = {}

    def close(self) -> None:
        """Let go of the namespace and of what was opened in it."""
        self.__dict__.pop("netlink", None)
        while self._things:
            self._things.popitem()[1].close()
        self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0 and not self._is_lent:
            os.close(self._fd)
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor that holds it."""
        return self._fd

    @cached_property
    def cookie(self) -> str:
        """The same for ever: the kernel counts namespaces, and it tells this boot from all others.

        `identity` may come again when this namespace is gone, as may its path.
        """
        with self.entered(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                (cookie,) = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
            except OSError:  # before Linux 5.14
                cookie = ".".join(map(str, self.identity))
        with open(_BOOT_ID, "rb") as boot_id:  # noqa: PTH123 - pathlib takes 2 ms to load
            return f"{boot_id.read().decode().strip()}/{cookie}"

    def opened(self, make: "Callable[[NetnsHandle], T]") -> T:
        """What `make` opens in the namespace, once: it is closed with this, unless the thread keeps it."""
        things = handle_cache.cached_at(self.identity)
        if things is None:
            things = self._things
        if make not in things:
            things[make] = make(self)
        thing: T = things[make]
        return thing

    def entered(self) -> "_Visit":
        """Move this thread into the namespace for as long as it takes to open a socket or a file there."""
        return _Visit(self)

    def enter_permanently(self) -> None:
        """Move this thread into the namespace to stay."""
        _setns(self._fd)

    @cached_property
    def netlink(self) -> "RouteSocket":
        """Its rtnetlink, opened on first use (what it takes of pyroute2 is 25 ms to load, so not before)."""
        return self.opened(new_route_socket)


class _Visit:
    """A thread's stay in a namespace. It costs nothing if the thread is there anyway."""

    __slots__ = ("_before", "_netns")

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns
        self._before = -1

    def __enter__(self) -> None:
        if _here() == self._netns.identity:
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
    """A socket to its rtnetlink, to be closed by whoever asks for it."""
    from pycni.kernel.netlink.rtnetlink import RouteSocket

    with netns.entered():
        return RouteSocket()


def _identity(status: os.stat_result) -> tuple[int, int]:
    """What tells a namespace from every other: device and inode."""
    return status.st_dev, status.st_ino


def _here() -> tuple[int, int]:
    """The identity of the namespace this thread is in."""
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
        if error.errno == errno.ENOTTY:  # it is no namespace at all
            return False
        raise


def is_own_namespace(place: str | int) -> bool:
    """Whether a path or descriptor is that of the namespace this thread is in; what cannot be seen is not (P-158)."""
    try:
        return _identity(os.stat(place)) == _here()  # noqa: PTH116 - pathlib would cost more than the call
    except (OSError, ValueError):
        return False


@cache
def _libc() -> Any:
    """Return the C library. One-shot processes that need none of its functions do not load ctypes, which takes 2 ms."""
    return ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc().setns(fd, _NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code).lower()}")


def move_thread_to(fd: int) -> None:
    """Move this thread into the network namespace to stay, unless it is there. Raises OSError."""
    if _identity(os.fstat(fd)) != _here():
        _setns(fd)


def unshare_network() -> None:
    """Give this thread a new, empty network namespace."""
    if _libc().unshare(_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code).lower()}")
