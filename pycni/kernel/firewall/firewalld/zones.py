"""Forward rules by firewalld: the addresses of attachments are sources of a zone, in the runtime configuration.

They are lost when firewalld reloads or ends. `address_owners` records whose the addresses are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.kernel.firewall.firewalld import dbus
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.firewall.protocols import ForwardRulesBackend
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pycni.kernel.firewall.settings import FirewallSettings

_BUS = "unix:path=/run/dbus/system_bus_socket"


def is_running(netns: NetnsHandle) -> bool:
    """Return whether firewalld runs and manages the namespace. False without an attempt if there is no system bus."""
    if not _socket_exists():
        return False
    try:
        with _opened() as bus:
            (is_owned,) = bus.ask("NameHasOwner")
            return is_owned and _manages(netns, bus)
    except CniError:
        return False


def probe() -> None:
    """Raise CniError, code 50, unless firewalld is running."""
    with _opened() as bus:
        (is_owned,) = bus.ask("NameHasOwner")
    if not is_owned:
        raise dbus.FirewalldUnavailableError("it is not connected to the system bus")


class FirewalldForwardRules(ForwardRulesBackend):
    """Forward rules as sources of a zone. A zone accepts packets by its own configuration."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        zone = settings.zone
        address_owners.create(self._netns, address_owners.FIREWALLD, ips, owner)
        for ip in ips:
            self._netns.journal.change(
                f"add source {ip} to firewalld zone {zone}", partial(_add, ip, zone), partial(_remove, [ip], zone)
            )

    def expect(
        self,
        ips: Sequence[Address],
        owner: Owner,  # noqa: ARG002 - sources have no label
        settings: FirewallSettings,
    ) -> None:
        with _opened() as bus:
            for ip in ips:
                what = f"failed to find the address {dbus.source(ip)} in {settings.zone} zone"
                (found,) = bus.call("querySource", settings.zone, ip, what=what)
                if not found:
                    raise CniError(what, details="firewall-cmd --reload removes sources that are not permanent")

    def delete(
        self,
        owner: Owner | Stale,
        settings: FirewallSettings,
        ips: Sequence[Address] | None = None,
        *,
        unowned: bool = False,
    ) -> None:
        entries = address_owners.find(self._netns, address_owners.FIREWALLD, ips)
        own = [ip for ip, label in entries if owner.owns(label)]
        if own:
            _remove(own, "")
            address_owners.delete(self._netns, address_owners.FIREWALLD, owner, own)
        owned = {ip for ip, _ in entries}
        if unowned:
            _remove([ip for ip in ips or () if ip not in owned], settings.zone)


def _add(ip: Address, zone: str) -> None:
    with _opened() as bus:
        try:
            bus.call("addSource", zone, ip, what=f"failed to add the address {dbus.source(ip)} to {zone} zone")
        except dbus.FirewalldError as error:
            if error.reason != "ZONE_ALREADY_SET":
                raise


def _remove(ips: Sequence[Address], zone: str) -> None:
    """Remove the sources from the zone; if that is empty, from the zones that have them."""
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
        return  # the sources were removed when firewalld ended


def _opened() -> AbstractContextManager[dbus.Bus]:
    return dbus.opened(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _BUS)


def _socket_exists() -> bool:
    return bool(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")) or Path(_BUS.partition("=")[2]).exists()


def _manages(netns: NetnsHandle, bus: dbus.Bus) -> bool:
    """Return whether firewalld runs in this namespace, or True if that cannot be determined.

    The bus may belong to the host around a nested container runtime, whose firewalld manages another namespace.
    """
    (pid,) = bus.ask("GetConnectionUnixProcessID")
    process = Path(f"/proc/{pid}")
    try:
        if b"firewalld" not in (process / "cmdline").read_bytes():
            return True  # the bus is in another PID namespace
        its_namespace = (process / "ns/net").stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ESRCH):
            return True
        raise
    return (its_namespace.st_dev, its_namespace.st_ino) == netns.identity
