"""Which firewall lets an attachment's packets through: nftables, iptables or firewalld."""

from dataclasses import dataclass, replace

from pycni.kernel import backend, firewalld
from pycni.kernel.door import Door
from pycni.kernel.iptables import restore
from pycni.kernel.nftables import nft

BACKENDS = ("nftables", "iptables", "firewalld")
ADMIN_CHAIN, ZONE = "CNI-ADMIN", "trusted"


@dataclass(frozen=True)
class Firewall:
    """A firewall as it is configured; a `backend` that is empty is the host's choice."""

    backend: str = ""
    admin_chain: str = ADMIN_CHAIN
    zone: str = ZONE

    def chosen(self, door: Door) -> "Firewall":
        """The same with a backend.

        firewalld where it is running; iptables where it drops what has no rule, which only a rule of its own can
        prevent; else nftables, unless this machine has iptables alone.
        """
        if self.backend:
            return self
        if firewalld.is_running(door):
            return replace(self, backend="firewalld")
        return replace(self, backend=backend.IPTABLES if restore.drops_forwarding(door) else backend.chosen())

    def probe(self, door: Door) -> None:
        """Raise CniError, code 50, unless it works in the namespace."""
        match self.chosen(door).backend:
            case "iptables":
                restore.probe(door)
            case "firewalld":
                firewalld.probe(door)
            case _:
                nft.probe(door)
