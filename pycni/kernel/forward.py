"""What the host lets through from and to an attachment, by the firewall of one's choice."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from pycni.kernel import firewalld
from pycni.kernel.door import Door
from pycni.kernel.firewall import BACKENDS, Firewall
from pycni.kernel.iptables import forward as by_iptables
from pycni.kernel.nftables import forward as by_nftables
from pycni.kernel.owner import Abandoned, Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError


def create(door: Door, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    """Let through what comes from these addresses, and what belongs to it."""
    if not ips:
        return
    match firewall.chosen(door).backend:
        case "iptables":
            by_iptables.create(door, ips, owner, firewall.admin_chain)
        case "firewalld":
            firewalld.create(door, ips, owner, firewall.zone)
        case _:
            by_nftables.create(door, ips, owner, firewall.admin_chain)


def expect(door: Door, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    """Raise CniError unless these addresses are let through: by the backend, or by any if none is named.

    (What is chosen now need not be what was there when the attachment was made, or what a Go plugin chose.)
    """
    chosen = firewall.chosen(door)
    try:
        _expect(door, ips, owner, chosen)
    except CniError:
        others = [replace(firewall, backend=name) for name in BACKENDS if name != chosen.backend]
        if firewall.backend or not any(_holds(door, ips, owner, other) for other in others):
            raise


def delete(door: Door, owner: Owner | Stale, firewall: Firewall, ips: Sequence[Address] | None = None) -> None:
    """Let the owner's addresses through no more: the configuration may have changed, so all backends are asked.

    Which addresses they are is looked up unless `ips` says it. Where nftables has none of them, a Go plugin may have
    made them, whose rules say nothing but the address.
    """
    by_go = bool(ips) and not by_nftables.holds(door, owner, ips or ())
    attempt = door.journal.attempt
    attempt("delete forwarding by nftables", partial(by_nftables.delete, door, owner, ips))
    attempt("delete forwarding by iptables", partial(by_iptables.delete, door, owner, ips, unregistered=by_go))
    attempt("delete forwarding by firewalld", partial(_delete_from_firewalld, door, owner, firewall, ips, by_go=by_go))


def delete_unregistered(door: Door, abandoned: Abandoned) -> None:
    """Let those addresses through no more of which a Go plugin has left rules, and that are abandoned."""
    what = "delete forwarding that nobody needs any more"
    door.journal.attempt(what, partial(by_iptables.delete_unregistered, door, abandoned))


def _delete_from_firewalld(
    door: Door, owner: Owner | Stale, firewall: Firewall, ips: Sequence[Address] | None, *, by_go: bool
) -> None:
    asked = by_go and firewall.chosen(door).backend == "firewalld"
    firewalld.delete(door, owner, ips, zone=firewall.zone, unregistered=asked)


def _expect(door: Door, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
    match firewall.backend:
        case "iptables":
            by_iptables.expect(door, ips, firewall.admin_chain)
        case "firewalld":
            firewalld.expect(door, ips, firewall.zone)
        case _:
            by_nftables.expect(door, ips, owner, firewall.admin_chain)


def _holds(door: Door, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> bool:
    try:
        _expect(door, ips, owner, firewall)
    except CniError:
        return False
    return True
