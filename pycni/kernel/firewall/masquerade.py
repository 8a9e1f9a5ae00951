"""Masquerading by nftables or iptables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.firewall import backend as backends
from pycni.kernel.firewall.iptables import masquerade as iptables
from pycni.kernel.firewall.nftables import masquerade as nftables
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from pycni.kernel.firewall.protocols import MasqueradeBackend
    from pycni.kernel.netns.handle import NetnsHandle
    from pycni.kernel.owner import Owner, Stale
    from pycni.protocol.address import Cidr


class MasqueradeRules:
    """Masquerading in a network namespace. `protocols.MasqueradeBackend` documents methods and arguments.

    backend: "nftables" or "iptables"; if "", `backend.resolve` chooses one.
    """

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    @property
    def _nftables(self) -> MasqueradeBackend:
        return nftables.NftablesMasquerade(self._netns)

    @property
    def _iptables(self) -> MasqueradeBackend:
        return iptables.IptablesMasquerade(self._netns)

    def create(self, cidrs: Sequence[Cidr], owner: Owner, *, backend: str = "") -> None:
        """Masquerade packets from these addresses, except to their own subnets and to multicast."""
        by_iptables = backends.resolve(backend) == backends.IPTABLES
        (self._iptables if by_iptables else self._nftables).create(cidrs, owner)

    def expect(self, cidrs: Sequence[Cidr], owner: Owner, *, backend: str = "") -> None:
        """Raise CniError unless the addresses are masqueraded: by `backend`, or by either if none is named.

        A Go plugin uses iptables if its configuration names no backend, and may have created the attachment.
        """
        if backends.resolve(backend) == backends.IPTABLES:
            self._iptables.expect(cidrs, owner)
            return
        try:
            self._nftables.expect(cidrs, owner)
        except CniError as missing:
            if backend or not self._is_held_by_iptables(cidrs, owner):
                raise missing from None

    def delete(self, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()) -> None:
        """Stop masquerading the owner's addresses, in both backends: the configuration may have changed since ADD."""
        attempt = self._netns.journal.attempt
        attempt("delete masquerading by nftables", partial(self._nftables.delete, owner, cidrs, kept=kept))
        attempt("delete masquerading by iptables", partial(self._iptables.delete, owner, cidrs, kept=kept))

    def _is_held_by_iptables(self, cidrs: Sequence[Cidr], owner: Owner) -> bool:
        try:
            self._iptables.expect(cidrs, owner)
        except CniError:
            return False
        return True
