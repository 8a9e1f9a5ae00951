"""firewalld: the addresses of attachments are sources of one of its zones, over D-Bus, until it is reloaded or ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.kernel.firewall.firewalld import dbus
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_BACKEND = "firewalld"
_BUS = "unix:path=/run/dbus/system_bus_socket"


def is_running(netns: NetnsHandle) -> bool:
    """Whether there is a firewalld for the namespace. Where there is no system bus, the answer costs nothing."""
    if not _socket_exists():
        return False
    try:
        with _opened() as bus:
            (is_owned,) = bus.ask("NameHasOwner")
            return is_owned and _is_of(netns, bus)
    except CniError:
        return False


def probe(_netns: NetnsHandle) -> None:
    """Raise CniError, code 50, unless firewalld is running."""
    with _opened() as bus:
        (is_owned,) = bus.ask("NameHasOwner")
    if not is_owned:
        raise dbus.FirewalldUnavailableError("nobody has its name on the system bus")


def create(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, zone: str) -> None:
    """Make these addresses sources of the zone."""
    address_owners.create(netns, _BACKEND, ips, owner)
    for ip in ips:
        netns.journal.change(
            f"make {ip} a source of zone {zone}", partial(_add, ip, zone), partial(_remove, [ip], zone)
        )


def expect(_netns: NetnsHandle, ips: Sequence[Address], zone: str) -> None:
    """Raise CniError unless these addresses are sources of the zone."""
    with _opened() as bus:
        for ip in ips:
            what = f"failed to find the address {dbus.source(ip)} in {zone} zone"
            (found,) = bus.call("querySource", zone, ip, what=what)
            if not found:
                raise CniError(what, details="a firewall-cmd --reload forgets what is not permanent")


def delete(
    netns: NetnsHandle,
    owner: Owner | Stale,
    ips: Sequence[Address] | None = None,
    *,
    zone: str,
    unregistered: bool = False,
) -> None:
    """The owner's addresses are sources no more: those registered, of whatever zone.

    With `unregistered`, those of `ips` that a Go plugin may have made sources of the zone too.
    """
    entries = address_owners.entries(netns, _BACKEND, ips)
    own = [ip for ip, label in entries if owner.owns(label)]
    if own:
        _remove(own, "")
        address_owners.delete(netns, _BACKEND, owner, own)
    known = {ip for ip, _ in entries}
    if unregistered:
        _remove([ip for ip in ips or () if ip not in known], zone)


def _add(ip: Address, zone: str) -> None:
    with _opened() as bus:
        try:
            bus.call("addSource", zone, ip, what=f"failed to add the address {dbus.source(ip)} to {zone} zone")
        except dbus.FirewalldError as error:
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
                    bus.call("removeSource", zone, ip, what=f"failed to remove the address {dbus.source(ip)}")
                except dbus.FirewalldError as error:
                    if error.reason not in ("UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE"):
                        raise
    except dbus.FirewalldUnavailableError:
        return  # what it had has gone with it


def _opened() -> AbstractContextManager[dbus.Bus]:
    return dbus.opened(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _BUS)


def _socket_exists() -> bool:
    return bool(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")) or Path(_BUS.partition("=")[2]).exists()


def _is_of(netns: NetnsHandle, bus: dbus.Bus) -> bool:
    """Whether firewalld rules this namespace: a nested runtime may well see the bus of the host around it."""
    (pid,) = bus.ask("GetConnectionUnixProcessID")
    process = Path(f"/proc/{pid}")
    try:
        if b"firewalld" not in (process / "cmdline").read_bytes():
            return True  # the bus counts processes in another way than we do: nothing can be said
        there = (process / "ns/net").stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ESRCH):
            return True
        raise
    return (there.st_dev, there.st_ino) == netns.identity
