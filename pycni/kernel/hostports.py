"""Host ports by the backend of one's choice."""

from collections.abc import Callable, Iterable
from functools import partial

from pycni.kernel import conntrack
from pycni.kernel.backend import IPTABLES, chosen
from pycni.kernel.door import Door
from pycni.kernel.iptables import hostports as by_iptables
from pycni.kernel.iptables import restore
from pycni.kernel.nftables import cni_hostport, nft
from pycni.kernel.nftables import hostports as by_nftables
from pycni.kernel.owner import Abandoned, Owner, Stale
from pycni.kernel.portmappings import HostPorts, UdpPort


def create(door: Door, ports: HostPorts, owner: Owner, backend: str = "") -> None:
    """Let ports of the host lead to the container. Raises CniError, code 11, for one that leads to another.

    (A Go plugin, or another configuration, may have used the other backend. Then who was first would have the port.)
    """
    by, other = (by_iptables, by_nftables) if chosen(backend) == IPTABLES else (by_nftables, by_iptables)
    other.ensure_free(door, ports, owner)
    cni_hostport.ensure_free(door, ports, owner.container_id)
    by.create(door, ports, owner)
    if udp := ports.udp_ports():
        door.journal.change("forget UDP flows to these ports", partial(conntrack.forget, door, udp))


def expect(door: Door, ports: HostPorts, owner: Owner, backend: str = "") -> None:
    """Raise CniError unless these ports lead to the container: by the backend, or by either if none is named.

    (A Go plugin takes iptables if none is named, and this may be its attachment, by either.)
    """
    if chosen(backend) != IPTABLES and not by_nftables.has(door, owner):
        if cni_hostport.holds(door, owner.container_id, ports):
            return
        if not backend and by_iptables.has(door, owner):
            backend = IPTABLES
    (by_iptables if chosen(backend) == IPTABLES else by_nftables).expect(door, ports, owner)


def delete(door: Door, owner: Owner | Stale, ports: HostPorts | None = None) -> None:
    """Remove all host ports of the owner, by whichever backend and plugin; `ports` are those it probably has."""
    for name, by in (("nftables", by_nftables), ("iptables", by_iptables)):
        what = f"delete host ports by {name}"
        door.journal.attempt(what, partial(_delete_and_forget, door, partial(by.delete, door, owner, ports)))
    if isinstance(owner, Owner):
        addresses = [str(target.ip) for target in ports.targets] if ports else []
        door.journal.attempt(
            "delete host ports of the Go plugin", partial(cni_hostport.delete, door, owner.container_id, addresses)
        )


def delete_unregistered(door: Door, abandoned: Abandoned) -> None:
    """Remove the host ports that lead to abandoned addresses by rules that tell no network, as the Go plugin's."""
    what = "delete host ports that lead nowhere any more"
    door.journal.attempt(what, partial(cni_hostport.delete_abandoned, door, abandoned))


def probe(door: Door, backend: str = "") -> None:
    """Raise CniError, code 50, unless the backend works in the namespace."""
    (restore if chosen(backend) == IPTABLES else nft).probe(door)


def _delete_and_forget(door: Door, delete_all: Callable[[], Iterable[UdpPort]]) -> None:
    conntrack.forget(door, delete_all())
