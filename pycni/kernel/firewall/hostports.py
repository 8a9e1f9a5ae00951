"""Host ports by the backend of one's choice."""

from collections.abc import Callable, Iterable
from functools import partial

from pycni.kernel.firewall import conntrack
from pycni.kernel.firewall.backend import IPTABLES, chosen
from pycni.kernel.firewall.iptables import hostports as by_iptables
from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.nftables import go_hostports, nft
from pycni.kernel.firewall.nftables import hostports as by_nftables
from pycni.kernel.firewall.port_mappings import HostPorts, UdpPort
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Abandoned, Owner, Stale


def create(netns: NetnsHandle, ports: HostPorts, owner: Owner, backend: str = "") -> None:
    """Let ports of the host lead to the container. Raises CniError, code 11, for one that leads to another.

    (A Go plugin, or another configuration, may have used the other backend. Then who was first would have the port.)
    """
    by, other = (by_iptables, by_nftables) if chosen(backend) == IPTABLES else (by_nftables, by_iptables)
    other.ensure_free(netns, ports, owner)
    go_hostports.ensure_free(netns, ports, owner.container_id)
    by.create(netns, ports, owner)
    if udp := ports.udp_ports():
        netns.journal.change("forget UDP flows to these ports", partial(conntrack.forget, netns, udp))


def expect(netns: NetnsHandle, ports: HostPorts, owner: Owner, backend: str = "") -> None:
    """Raise CniError unless these ports lead to the container: by the backend, or by either if none is named.

    (A Go plugin takes iptables if none is named, and this may be its attachment, by either.)
    """
    if chosen(backend) != IPTABLES and not by_nftables.has(netns, owner):
        if go_hostports.holds(netns, owner.container_id, ports):
            return
        if not backend and by_iptables.has(netns, owner):
            backend = IPTABLES
    (by_iptables if chosen(backend) == IPTABLES else by_nftables).expect(netns, ports, owner)


def delete(netns: NetnsHandle, owner: Owner | Stale, ports: HostPorts | None = None) -> None:
    """Remove all host ports of the owner, by whichever backend and plugin; `ports` are those it probably has."""
    for name, by in (("nftables", by_nftables), ("iptables", by_iptables)):
        what = f"delete host ports by {name}"
        netns.journal.attempt(what, partial(_delete_and_forget, netns, partial(by.delete, netns, owner, ports)))
    if isinstance(owner, Owner):
        addresses = [str(target.ip) for target in ports.targets] if ports else []
        netns.journal.attempt(
            "delete host ports of the Go plugin", partial(go_hostports.delete, netns, owner.container_id, addresses)
        )


def delete_unregistered(netns: NetnsHandle, abandoned: Abandoned) -> None:
    """Remove the host ports that lead to abandoned addresses by rules that tell no network, as the Go plugin's."""
    what = "delete host ports that lead nowhere any more"
    netns.journal.attempt(what, partial(go_hostports.delete_abandoned, netns, abandoned))


def probe(netns: NetnsHandle, backend: str = "") -> None:
    """Raise CniError, code 50, unless the backend works in the namespace."""
    (restore if chosen(backend) == IPTABLES else nft).probe(netns)


def _delete_and_forget(netns: NetnsHandle, delete_all: Callable[[], Iterable[UdpPort]]) -> None:
    conntrack.forget(netns, delete_all())
