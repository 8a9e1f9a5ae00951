"""firewalld: the addresses of attachments are sources of one of its zones, over D-Bus, until it is reloaded or ends."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pycni.kernel.door import Door
from pycni.kernel.nftables import register
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError, Code

_BACKEND = "firewalld"
_NAME, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_BUS = "unix:path=/run/dbus/system_bus_socket"
_PATIENCE = 30  # seconds; while firewalld reloads, it does not answer
_NOT_RUNNING = ("ServiceUnknown", "NameHasNoOwner", "Spawn.")  # in names of D-Bus errors


class FirewalldUnavailableError(CniError):
    """firewalld is not running (code 50)."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"firewalld is not available: {reason}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="start it (systemctl start firewalld), or let the configuration name another backend",
        )


class FirewalldError(CniError):
    """firewalld has refused: `reason` is its own word, such as ZONE_ALREADY_SET."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"{what}: {text}")
        self.reason = text.partition(":")[0]


def is_running(door: Door) -> bool:
    """Whether there is a firewalld for the namespace. Where there is no system bus, the answer costs nothing."""
    if not _socket_exists():
        return False
    try:
        with _opened() as bus:
            (is_owned,) = bus.ask("NameHasOwner", _NAME)
            return is_owned and _is_of(door, bus)
    except CniError:
        return False


def probe(_door: Door) -> None:
    """Raise CniError, code 50, unless firewalld is running."""
    with _opened() as bus:
        (is_owned,) = bus.ask("NameHasOwner", _NAME)
    if not is_owned:
        raise FirewalldUnavailableError("nobody has its name on the system bus")


def create(door: Door, ips: Sequence[Address], owner: Owner, zone: str) -> None:
    """Make these addresses sources of the zone."""
    register.create(door, _BACKEND, ips, owner)
    for ip in ips:
        door.journal.change(f"make {ip} a source of zone {zone}", partial(_add, ip, zone), partial(_remove, [ip], zone))


def expect(_door: Door, ips: Sequence[Address], zone: str) -> None:
    """Raise CniError unless these addresses are sources of the zone."""
    with _opened() as bus:
        for ip in ips:
            what = f"failed to find the address {_source(ip)} in {zone} zone"
            (found,) = bus.call("querySource", zone, ip, what=what)
            if not found:
                raise CniError(what, details="a firewall-cmd --reload forgets what is not permanent")


def delete(
    door: Door, owner: Owner | Stale, ips: Sequence[Address] | None = None, *, zone: str, unregistered: bool = False
) -> None:
    """The owner's addresses are sources no more: those registered, of whatever zone.

    With `unregistered`, those of `ips` that a Go plugin may have made sources of the zone too.
    """
    entries = register.entries(door, _BACKEND, ips)
    own = [ip for ip, label in entries if owner.owns(label)]
    if own:
        _remove(own, "")
        register.delete(door, _BACKEND, owner, own)
    known = {ip for ip, _ in entries}
    if unregistered:
        _remove([ip for ip in ips or () if ip not in known], zone)


def _add(ip: Address, zone: str) -> None:
    with _opened() as bus:
        try:
            bus.call("addSource", zone, ip, what=f"failed to add the address {_source(ip)} to {zone} zone")
        except FirewalldError as error:
            if error.reason != "ZONE_ALREADY_SET":
                raise


def _remove(ips: Sequence[Address], zone: str) -> None:
    """Take the addresses out of the zone, or of whichever they are in if that is empty."""
    if not ips:
        return
    try:
        with _opened() as bus:
            for ip in ips:
                try:
                    bus.call("removeSource", zone, ip, what=f"failed to remove the address {_source(ip)}")
                except FirewalldError as error:
                    if error.reason not in ("UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE"):
                        raise
    except FirewalldUnavailableError:
        return  # what it had has gone with it


def _source(ip: Address) -> str:
    return f"{ip}/{ip.max_prefixlen}"


class _Bus:
    """The system bus, for as long as a few calls take."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def ask(self, method: str, argument: str) -> tuple[Any, ...]:
        """Call a method of the bus itself."""
        from jeepney import DBusAddress, new_method_call

        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        return self._reply(new_method_call(bus, method, "s", (argument,)), f"the system bus refused {method}")

    def call(self, method: str, zone: str, ip: Address, *, what: str) -> tuple[Any, ...]:
        """Call a method of firewalld's zones. Raises FirewalldError, FirewalldUnavailableError."""
        from jeepney import DBusAddress, new_method_call

        zones = DBusAddress(_PATH, _NAME, f"{_NAME}.zone")
        return self._reply(new_method_call(zones, method, "ss", (zone, _source(ip))), what)

    def _reply(self, message: Any, what: str) -> tuple[Any, ...]:
        from jeepney import DBusErrorResponse
        from jeepney.wrappers import unwrap_msg

        try:
            answer: tuple[Any, ...] = unwrap_msg(self._connection.send_and_get_reply(message, timeout=_PATIENCE))
        except DBusErrorResponse as error:
            text = str(error.data[0]) if error.data else error.name
            if any(word in error.name for word in _NOT_RUNNING):
                raise FirewalldUnavailableError(text) from None
            raise FirewalldError(what, text) from None
        except TimeoutError:
            raise CniError(
                f"{what}: firewalld has not answered for {_PATIENCE} s",
                code=Code.TRY_AGAIN_LATER,
                details="it may be reloading; `firewall-cmd --state` waits for it",
            ) from None
        return answer


@contextmanager
def _opened() -> Iterator[_Bus]:
    # Imported here: 14 ms, and hosts without a system bus never need it.
    from jeepney.io.blocking import open_dbus_connection

    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _BUS
    try:
        connection = open_dbus_connection(address)
    except (OSError, ValueError, RuntimeError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise FirewalldUnavailableError(f"there is no system bus at {address}: {reason}") from None
    try:
        yield _Bus(connection)
    except OSError as error:
        raise CniError(f"the system bus has hung up: {error}", code=Code.TRY_AGAIN_LATER) from None
    finally:
        connection.close()


def _socket_exists() -> bool:
    return bool(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")) or Path(_BUS.partition("=")[2]).exists()


def _is_of(door: Door, bus: _Bus) -> bool:
    """Whether firewalld rules this namespace: a nested runtime may well see the bus of the host around it."""
    (pid,) = bus.ask("GetConnectionUnixProcessID", _NAME)
    process = Path(f"/proc/{pid}")
    try:
        if b"firewalld" not in (process / "cmdline").read_bytes():
            return True  # the bus counts processes in another way than we do: nothing can be said
        there = (process / "ns/net").stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ESRCH):
            return True
        raise
    return (there.st_dev, there.st_ino) == door.identity
