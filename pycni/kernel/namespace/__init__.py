"""What plugins speak to: a network namespace with the verbs of its links, its settings and its firewall."""

from __future__ import annotations

from pycni.kernel.journal import Journal
from pycni.kernel.namespace.bridges import BridgeVerbs
from pycni.kernel.namespace.firewall import FirewallVerbs
from pycni.kernel.namespace.gone import NoNamespace
from pycni.kernel.namespace.routing import RoutingVerbs
from pycni.kernel.namespace.shaping import ShapingVerbs
from pycni.kernel.netns.handle import OWN
from pycni.kernel.owner import Stale

__all__ = ["Namespace", "NoNamespace"]


class Namespace(BridgeVerbs, RoutingVerbs, ShapingVerbs, FirewallVerbs):
    """A network namespace and what can be done in it; every change goes through the journal."""

    @classmethod
    def own(cls, journal: Journal, descriptor: int | None = None) -> Namespace:
        """The namespace this thread is in: the host, as the runtime sees it. See Door for its `descriptor`."""
        return cls(OWN, journal, descriptor)

    @classmethod
    def at(cls, path: str) -> Namespace:
        """The namespace at the path, for what lives on between calls: what it changes stays.

        Raises CniError, code 8, if there is none.
        """
        return cls(path, Journal())

    def delete_stale(self, stale: Stale) -> None:
        """Remove every link and every firewall element that belongs to no valid attachment of the network."""
        for link in self.links():
            if stale.owns(link.state.alias):
                self.delete_link(link.name)
        self.delete_masquerade(stale)
        self.delete_spoof_check(stale)
