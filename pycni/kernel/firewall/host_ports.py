"""Host ports by nftables or iptables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.firewall import backend as backends
from pycni.kernel.firewall import conntrack
from pycni.kernel.firewall.iptables import host_ports as iptables
from pycni.kernel.firewall.nftables import go_host_ports
from pycni.kernel.firewall.nftables.host_ports import backend as nftables
from pycni.kernel.owner import Owner

if TYPE_CHECKING:
    from pycni.kernel.firewall.port_mappings import HostPorts
    from pycni.kernel.firewall.protocols import HostPortsBackend
    from pycni.kernel.netns.handle import NetnsHandle
    from pycni.kernel.owner import SelectUnused, Stale


class HostPortRules:
    """Host ports of a network namespace. `protocols.HostPortsBackend` documents methods and arguments.

    backend: "nftables" or "iptables"; if "", `backend.resolve` chooses one.
    """

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    @property
    def _nftables(self) -> HostPortsBackend:
        return nftables.NftablesHostPorts(self._netns)

    @property
    def _iptables(self) -> HostPortsBackend:
        return iptables.IptablesHostPorts(self._netns)

    def create(self, ports: HostPorts, owner: Owner, *, backend: str = "") -> None:
        """Map the host ports to the container, and delete the conntrack entries of UDP ports.

        Raises CniError, code 11, for a host port that is mapped to another container, by either backend or by a Go
        plugin. Otherwise the mapping that the kernel evaluates first would receive the packets.
        """
        chosen, other = self._nftables, self._iptables
        if backends.resolve(backend) == backends.IPTABLES:
            chosen, other = other, chosen
        other.ensure_free(ports, owner)
        go_host_ports.ensure_free(self._netns, ports, owner.container_id)
        chosen.create(ports, owner)
        if udp := ports.udp_ports():
            what = "delete conntrack entries of these UDP ports"
            self._netns.journal.change(what, partial(conntrack.delete_entries, self._netns, udp))

    def expect(self, ports: HostPorts, owner: Owner, *, backend: str = "") -> None:
        """Raise CniError unless the ports are mapped to the container: by `backend`, or by either if none is named.

        A Go plugin uses iptables if its configuration names no backend, and may have created the attachment.
        """
        chosen = self._nftables
        if backends.resolve(backend) == backends.IPTABLES:
            chosen = self._iptables
        elif not chosen.has(owner):
            if go_host_ports.holds(self._netns, owner.container_id, ports):
                return
            if not backend and self._iptables.has(owner):
                chosen = self._iptables
        chosen.expect(ports, owner)

    def delete(self, owner: Owner | Stale, ports: HostPorts | None = None) -> None:
        """Remove all host ports of the owner, in both backends and those of Go plugins.

        Also delete the conntrack entries of the UDP ports among them.
        """
        attempt = self._netns.journal.attempt
        for name, backend in ((backends.NFTABLES, self._nftables), (backends.IPTABLES, self._iptables)):
            attempt(f"delete host ports by {name}", partial(self._delete_by, backend, owner, ports))
        if isinstance(owner, Owner):
            addresses = [str(target.ip) for target in ports.targets] if ports else []
            delete_from_go = partial(go_host_ports.delete, self._netns, owner.container_id, addresses)
            attempt("delete host ports of the Go plugin", delete_from_go)

    def delete_unowned(self, select_unused: SelectUnused) -> None:
        """Remove host ports that a Go plugin mapped to addresses that no attachment uses any more.

        The rules of the Go plugin name no network. `select_unused` gets the addresses in its rules.
        """
        what = "delete host ports that are mapped to unused addresses"
        self._netns.journal.attempt(what, partial(go_host_ports.delete_unused, self._netns, select_unused))

    def _delete_by(self, backend: HostPortsBackend, owner: Owner | Stale, ports: HostPorts | None) -> None:
        conntrack.delete_entries(self._netns, backend.delete(owner, ports))
