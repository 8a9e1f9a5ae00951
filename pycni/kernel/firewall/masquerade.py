"""Masquerading by the backend of one's choice."""

from collections.abc import Collection, Sequence
from functools import partial

from pycni.kernel.firewall.backend import IPTABLES, chosen
from pycni.kernel.firewall.iptables import masquerade as by_iptables
from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.nftables import masquerade as by_nftables
from pycni.kernel.firewall.nftables import nft
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError


def create(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner, backend: str = "") -> None:
    """Hide these addresses behind the host's, towards everything outside their own subnets."""
    (by_iptables if chosen(backend) == IPTABLES else by_nftables).create(netns, cidrs, owner)


def expect(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner, backend: str = "") -> None:
    """Raise CniError unless these addresses are masqueraded: by the backend, or by either if none is named.

    (A Go plugin takes iptables if none is named, and this may be its attachment.)
    """
    if chosen(backend) == IPTABLES:
        by_iptables.expect(netns, cidrs, owner)
        return
    try:
        by_nftables.expect(netns, cidrs, owner)
    except CniError as missing:
        if backend or not _held_by_iptables(netns, cidrs, owner):
            raise missing from None


def delete(
    netns: NetnsHandle, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()
) -> None:
    """Masquerade the owner's addresses no more: a configuration may have changed since, so both backends are asked."""
    netns.journal.attempt("delete masquerading by nftables", partial(by_nftables.delete, netns, owner, cidrs))
    netns.journal.attempt(
        "delete masquerading by iptables", partial(by_iptables.delete, netns, owner, cidrs, kept=kept)
    )


def probe(netns: NetnsHandle, backend: str = "") -> None:
    """Raise CniError, code 50, unless the backend works in the namespace."""
    (restore if chosen(backend) == IPTABLES else nft).probe(netns)


def _held_by_iptables(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner) -> bool:
    try:
        by_iptables.expect(netns, cidrs, owner)
    except CniError:
        return False
    return True
