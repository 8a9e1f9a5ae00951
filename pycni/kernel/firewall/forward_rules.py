"""Forward rules by nftables, iptables or firewalld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.firewall import backend as backends
from pycni.kernel.firewall.firewalld import zones as firewalld
from pycni.kernel.firewall.iptables import forward_rules as iptables
from pycni.kernel.firewall.nftables import forward_rules as nftables
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from pycni.kernel.firewall.protocols import ForwardRulesBackend
    from pycni.kernel.firewall.settings import FirewallSettings
    from pycni.kernel.netns.handle import NetnsHandle
    from pycni.kernel.owner import Owner, SelectUnused, Stale
    from pycni.protocol.address import Address


class ForwardRules:
    """Forward rules of a network namespace. `protocols.ForwardRulesBackend` documents methods and arguments.

    If `settings` name no backend, `backend.resolve_settings` chooses one.
    """

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def probe(self, settings: FirewallSettings) -> None:
        """Raise CniError, code 50, unless the backend works."""
        backends.probe(self._netns, backends.resolve_settings(self._netns, settings).backend)

    def create(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        """Accept packets from these addresses, and packets to them that belong to established connections."""
        if ips:
            chosen = backends.resolve_settings(self._netns, settings)
            self._backend(chosen.backend).create(ips, owner, chosen)

    def expect(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        """Raise CniError unless these addresses are accepted: by the backend, or by any if `settings` name none.

        The host's default may have changed since ADD, and a Go plugin may have chosen another backend.
        """
        chosen = backends.resolve_settings(self._netns, settings)
        try:
            self._backend(chosen.backend).expect(ips, owner, chosen)
        except CniError:
            others = [name for name in backends.BACKENDS if name != chosen.backend]
            if settings.backend or not any(self._holds(ips, owner, replace(settings, backend=name)) for name in others):
                raise

    def delete(self, owner: Owner | Stale, settings: FirewallSettings, ips: Sequence[Address] | None = None) -> None:
        """Stop accepting packets of the owner's addresses, in all backends: the settings may have changed since ADD.

        If nftables has none of `ips`, a Go plugin may have made their rules, which name only the address.
        """
        by_nftables = nftables.NftablesForwardRules(self._netns)
        by_go = bool(ips) and not by_nftables.holds(owner, ips or ())
        attempt = self._netns.journal.attempt
        attempt("delete forward rules by nftables", partial(by_nftables.delete, owner, settings, ips))
        by_iptables = iptables.IptablesForwardRules(self._netns)
        attempt("delete forward rules by iptables", partial(by_iptables.delete, owner, settings, ips, unowned=by_go))
        attempt(
            "delete forward rules by firewalld",
            partial(self._delete_from_firewalld, owner, settings, ips, by_go=by_go),
        )

    def delete_unowned(self, select_unused: SelectUnused) -> None:
        """Delete the rules of a Go plugin for addresses that no attachment uses any more.

        The rules of the Go plugin name no network. `select_unused` gets the addresses of rules without an owner.
        """
        by_iptables = iptables.IptablesForwardRules(self._netns)
        what = "delete forward rules of unused addresses"
        self._netns.journal.attempt(what, partial(by_iptables.delete_unowned, select_unused))

    def _backend(self, name: str) -> ForwardRulesBackend:
        if name == backends.IPTABLES:
            return iptables.IptablesForwardRules(self._netns)
        if name == backends.FIREWALLD:
            return firewalld.FirewalldForwardRules(self._netns)
        return nftables.NftablesForwardRules(self._netns)

    def _delete_from_firewalld(
        self, owner: Owner | Stale, settings: FirewallSettings, ips: Sequence[Address] | None, *, by_go: bool
    ) -> None:
        unowned = by_go and backends.resolve_settings(self._netns, settings).backend == backends.FIREWALLD
        firewalld.FirewalldForwardRules(self._netns).delete(owner, settings, ips, unowned=unowned)

    def _holds(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> bool:
        try:
            self._backend(settings.backend).expect(ips, owner, settings)
        except CniError:
            return False
        return True
