"""Network namespaces as plugins use them, with attributes for links, addresses, routes, the firewall and so on."""

from __future__ import annotations

from functools import cached_property

from pycni.kernel.firewall.facade import Firewall
from pycni.kernel.journal import Journal
from pycni.kernel.link import addresses, bridges, link_moves, links, routes, rules, shaping, taps, vrfs
from pycni.kernel.link.link import Link
from pycni.kernel.namespace.gone import NoNamespace
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.owner import Stale

__all__ = ["Namespace", "NoNamespace"]


class Namespace(NetnsHandle):
    """A network namespace; every change in it goes through the journal of the call.

    Each attribute holds the operations on one kind of object, as in `cni.host.links.create_veth(...)`.
    """

    read_only = False  # the call changes nothing, so the state of each link is read only once

    @classmethod
    def own(cls, journal: Journal, descriptor: int | None = None) -> Namespace:
        """Return the namespace that this thread is in: the host, as the runtime sees it.

        `descriptor` is an open file of that namespace, see NetnsHandle.
        """
        return cls(OWN, journal, descriptor)

    @classmethod
    def at(cls, path: str) -> Namespace:
        """Return the namespace at the path, for use outside of a call: changes are not undone.

        Raises CniError, code 8, if there is none.
        """
        return cls(path, Journal())

    def close(self) -> None:
        """Close the namespace and everything that was opened in it."""
        for name in _ATTRIBUTES:  # they refer to the namespace: without the cycle it is freed at once
            self.__dict__.pop(name, None)
        super().close()

    def find_link(self, name: str) -> Link | None:
        """Return the link called `name`, or None if there is none."""
        return self.links.find(name)

    def link(self, name: str) -> Link:
        """Return the link called `name`. Raises CniError if there is none."""
        return self.links.get(name)

    @cached_property
    def links(self) -> links.Links:
        """Links: find, create, delete and wait for them."""
        return links.Links(self, cached=self.read_only)

    @cached_property
    def bridges(self) -> bridges.Bridges:
        """Bridges, their ports, and gateways in their VLANs."""
        return bridges.Bridges(self)

    @cached_property
    def taps(self) -> taps.Taps:
        """Taps."""
        return taps.Taps(self)

    @cached_property
    def link_moves(self) -> link_moves.LinkMoves:
        """Moves of links to another namespace and back."""
        return link_moves.LinkMoves(self)

    @cached_property
    def addresses(self) -> addresses.Addresses:
        """Addresses: configure interfaces, and add, check and announce addresses."""
        return addresses.Addresses(self)

    @cached_property
    def routes(self) -> routes.Routes:
        """Routes."""
        return routes.Routes(self)

    @cached_property
    def rules(self) -> rules.SourceRules:
        """Policy rules that match one source address."""
        return rules.SourceRules(self)

    @cached_property
    def vrfs(self) -> vrfs.Vrfs:
        """VRFs and their members."""
        return vrfs.Vrfs(self)

    @cached_property
    def shaping(self) -> shaping.Shaping:
        """Traffic shaping: rate limits and redirection to an ifb."""
        return shaping.Shaping(self)

    @cached_property
    def sysctls(self) -> sysctl.Sysctls:
        """Sysctls below net."""
        return sysctl.Sysctls(self)

    @cached_property
    def firewall(self) -> Firewall:
        """The firewall: masquerading, host ports, forward rules, isolation and spoof checks."""
        return Firewall(self)

    def delete_stale(self, stale: Stale) -> None:
        """Delete every link and firewall element that belongs to no valid attachment of the network."""
        for link in self.links.all():
            if stale.owns(link.state.alias):
                self.links.delete(link.name)
        self.firewall.masquerade.delete(stale)
        self.firewall.spoof_check.delete(stale)


_ATTRIBUTES = [name for name, value in vars(Namespace).items() if isinstance(value, cached_property)]
