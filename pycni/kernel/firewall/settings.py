"""Which firewall lets an attachment's packets through: nftables, iptables or firewalld."""

from dataclasses import dataclass, replace

from pycni.kernel.firewall import backend
from pycni.kernel.firewall.firewalld import zones
from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.nftables import nft
from pycni.kernel.netns.handle import NetnsHandle

BACKENDS = ("nftables", "iptables", "firewalld")
ADMIN_CHAIN, ZONE = "CNI-ADMIN", "trusted"


@dataclass(frozen=True)
class Firewall:
    """A firewall as it is configured; a `backend` that is empty is the host's choice."""

    backend: str = ""
    admin_chain: str = ADMIN_CHAIN
    zone: str = ZONE

    def chosen(self, netns: NetnsHandle) -> "Firewall":
        """The same with a backend.

        firewalld where it is running; iptables where it drops what has no rule, which only a rule of its own can
        prevent; else nftables, unless this machine has iptables alone.
        """
        if self.backend:
            return self
        if zones.is_running(netns):
            return replace(self, backend="firewalld")
        return replace(self, backend=backend.IPTABLES if restore.drops_forwarding(netns) else backend.chosen())

    def probe(self, netns: NetnsHandle) -> None:
        """Raise CniError, code 50, unless it works in the namespace."""
        match self.chosen(netns).backend:
            case "iptables":
                restore.probe(netns)
            case "firewalld":
                zones.probe(netns)
            case _:
                nft.probe(netns)
