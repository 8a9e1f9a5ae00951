"""Choice of the firewall backend if the configuration names none, and tests whether a backend works."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pycni.kernel.firewall.firewalld import zones
from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.nftables import nft

if TYPE_CHECKING:
    from pycni.kernel.firewall.settings import FirewallSettings
    from pycni.kernel.netns.handle import NetnsHandle

NFTABLES, IPTABLES, FIREWALLD = "nftables", "iptables", "firewalld"
BACKENDS = (NFTABLES, IPTABLES, FIREWALLD)


def resolve(name: str = "") -> str:
    """Return `name`, or the default if it is empty: nftables, or iptables if the machine has only iptables."""
    if name:
        return name
    return IPTABLES if not nft.is_installed() and restore.is_installed() else NFTABLES


def resolve_settings(netns: NetnsHandle, settings: FirewallSettings) -> FirewallSettings:
    """Return the settings with a backend.

    If none is named, the backend is firewalld if it manages the namespace. It is iptables if the policy of an iptables
    FORWARD chain is DROP, because then only a rule in that chain can accept packets. Otherwise it is that of `resolve`.
    """
    if settings.backend:
        return settings
    if zones.is_running(netns):
        return replace(settings, backend=FIREWALLD)
    return replace(settings, backend=IPTABLES if restore.drops_forwarding(netns) else resolve())


def probe(netns: NetnsHandle, name: str) -> None:
    """Raise CniError, code 50, unless the backend `name` works in the namespace."""
    if name == IPTABLES:
        restore.probe(netns)
    elif name == FIREWALLD:
        zones.probe()
    else:
        nft.probe(netns)
