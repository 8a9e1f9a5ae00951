"""What the host lets through from and to an attachment, by the firewall of one's choice."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from pycni.kernel.firewall.firewalld import zones
from pycni.kernel.firewall.iptables import forward as by_iptables
from pycni.kernel.firewall.nftables import forward as by_nftables
from pycni.kernel.firewall.settings import BACKENDS, Firewall
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Abandoned, Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError


def create(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    """Let through what comes from these addresses, and what belongs to it."""
    if not ips:
        return
    match firewall.chosen(netns).backend:
        case "iptables":
            by_iptables.create(netns, ips, owner, firewall.admin_chain)
        case "firewalld":
            zones.create(netns, ips, owner, firewall.zone)
        case _:
            by_nftables.create(netns, ips, owner, firewall.admin_chain)


def expect(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    """Raise CniError unless these addresses are let through: by the backend, or by any if none is named.

    (What is chosen now need not be what was there when the attachment was made, or what a Go plugin chose.)
    """
    chosen = firewall.chosen(netns)
    try:
        _expect(netns, ips, owner, chosen)
    except CniError:
        others = [replace(firewall, backend=name) for name in BACKENDS if name != chosen.backend]
        if firewall.backend or not any(_holds(netns, ips, owner, other) for other in others):
            raise


def delete(netns: NetnsHandle, owner: Owner | Stale, firewall: Firewall, ips: Sequence[Address] | None = None) -> None:
    """Let the owner's addresses through no more: the configuration may have changed, so all backends are asked.

    Which addresses they are is looked up unless `ips` says it. Where nftables has none of them, a Go plugin may have
    made them, whose rules say nothing but the address.
    """
    by_go = bool(ips) and not by_nftables.holds(netns, owner, ips or ())
    attempt = netns.journal.attempt
    attempt("delete forwarding by nftables", partial(by_nftables.delete, netns, owner, ips))
    attempt("delete forwarding by iptables", partial(by_iptables.delete, netns, owner, ips, unregistered=by_go))
    attempt("delete forwarding by firewalld", partial(_delete_from_firewalld, netns, owner, firewall, ips, by_go=by_go))


def delete_unregistered(netns: NetnsHandle, abandoned: Abandoned) -> None:
    """Let those addresses through no more of which a Go plugin has left rules, and that are abandoned."""
    what = "delete forwarding that nobody needs any more"
    netns.journal.attempt(what, partial(by_iptables.delete_unregistered, netns, abandoned))


def _delete_from_firewalld(
    netns: NetnsHandle, owner: Owner | Stale, firewall: Firewall, ips: Sequence[Address] | None, *, by_go: bool
) -> None:
    asked = by_go and firewall.chosen(netns).backend == "firewalld"
    zones.delete(netns, owner, ips, zone=firewall.zone, unregistered=asked)


def _expect(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    match firewall.backend:
        case "iptables":
            by_iptables.expect(netns, ips, firewall.admin_chain)
        case "firewalld":
            zones.expect(netns, ips, firewall.zone)
        case _:
            by_nftables.expect(netns, ips, owner, firewall.admin_chain)


def _holds(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> bool:
    try:
        _expect(netns, ips, owner, firewall)
    except CniError:
        return False
    return True
