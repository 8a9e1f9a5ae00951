"""What a namespace lets through, translates and keeps apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.firewall import forward, hostports, isolation, masquerade
from pycni.kernel.firewall.nftables import nft, spoof_check
from pycni.kernel.firewall.port_mappings import HostPorts
from pycni.kernel.link.link import Link
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Abandoned, Owner, Stale
from pycni.protocol.address import Address, Cidr

if TYPE_CHECKING:
    from pycni.kernel.firewall.isolation import BridgeIsolation
    from pycni.kernel.firewall.settings import Firewall


class FirewallVerbs(NetnsHandle):
    """The verbs of the firewall, whichever it is."""

    def expect_firewall(self) -> None:
        """Raise CniError, code 50, unless nftables works."""
        nft.probe(self)

    def expect_masquerading(self, backend: str = "") -> None:
        """Raise CniError, code 50, unless the backend works."""
        masquerade.probe(self, backend)

    def create_masquerade(self, cidrs: Sequence[Cidr], owner: Owner, *, backend: str = "") -> None:
        """Hide these addresses behind the host's, towards everything outside their own subnets.

        The backend is "nftables", which is the default, or "iptables".
        """
        masquerade.create(self, cidrs, owner, backend)

    def expect_masquerade(self, cidrs: Sequence[Cidr], owner: Owner, *, backend: str = "") -> None:
        """Raise CniError unless these addresses are masqueraded: by the backend, or by either if none is named."""
        masquerade.expect(self, cidrs, owner, backend)

    def delete_masquerade(
        self, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()
    ) -> None:
        """Masquerade the owner's addresses no more, by whichever backend; which they are is looked up without `cidrs`.

        What is `kept` are addresses that other interfaces of the container have on the same network.
        """
        masquerade.delete(self, owner, cidrs, kept=kept)

    def create_forward_rules(self, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
        """Let through what comes from these addresses, and what belongs to it."""
        forward.create(self, ips, owner, firewall)

    def expect_forward_rules(self, ips: Sequence[Address], owner: Owner, firewall: Firewall) -> None:
        """Raise CniError unless these addresses are let through: by the backend, or by any if none is named."""
        forward.expect(self, ips, owner, firewall)

    def delete_forward_rules(
        self, owner: Owner | Stale, firewall: Firewall, ips: Sequence[Address] | None = None
    ) -> None:
        """Let the owner's addresses through no more, by whichever backend; they are looked up without `ips`."""
        forward.delete(self, owner, firewall, ips)

    def delete_unregistered_forward_rules(self, abandoned: Abandoned) -> None:
        """Let those addresses through no more of which a Go plugin has left rules, and that are abandoned."""
        forward.delete_unregistered(self, abandoned)

    def create_isolation(self, fence: BridgeIsolation, owner: Owner, firewall: Firewall) -> None:
        """Keep the bridge apart from all others that are kept apart, and its ports from each other if it is strict."""
        isolation.create(self, fence, owner, firewall)

    def expect_isolation(self, fence: BridgeIsolation, owner: Owner, firewall: Firewall) -> None:
        """Raise CniError unless the bridge is kept apart: by the backend, or by any if none is named."""
        isolation.expect(self, fence, owner, firewall)

    def delete_isolation(self, owner: Owner | Stale, fence: BridgeIsolation | None = None) -> None:
        """Let go of the fence, by whichever backend; it goes with the last who needs it."""
        isolation.delete(self, owner, fence)

    def create_spoof_check(self, port: Link, mac: str, owner: Owner) -> None:
        """Drop what the bridge port sends from any other hardware address."""
        spoof_check.create(self, port.name, mac, owner)

    def expect_spoof_check(self, port: Link, mac: str, owner: Owner) -> None:
        """Raise CniError unless the bridge port is guarded."""
        spoof_check.expect(self, port.name, mac, owner)

    def delete_spoof_check(self, owner: Owner | Stale) -> None:
        """Guard the owner's port no more."""
        self.journal.attempt("delete spoof check", partial(spoof_check.delete, self, owner))

    def expect_publishing(self, backend: str = "") -> None:
        """Raise CniError, code 50, unless the backend works."""
        hostports.probe(self, backend)

    def create_host_ports(self, ports: HostPorts, owner: Owner, *, backend: str = "") -> None:
        """Let ports of the host lead to the container. Raises CniError, code 11, for one that leads to another.

        The backend is "nftables", which is the default, or "iptables".
        """
        hostports.create(self, ports, owner, backend)

    def expect_host_ports(self, ports: HostPorts, owner: Owner, *, backend: str = "") -> None:
        """Raise CniError unless these ports lead to the container: by the backend, or by either if none is named."""
        hostports.expect(self, ports, owner, backend)

    def delete_host_ports(self, owner: Owner | Stale, ports: HostPorts | None = None) -> None:
        """Let no port lead to the owner's container, by whichever backend; `ports` are those it probably has."""
        hostports.delete(self, owner, ports)

    def delete_unregistered_host_ports(self, abandoned: Abandoned) -> None:
        """Remove the host ports that lead to abandoned addresses by rules that tell no network, as the Go plugin's."""
        hostports.delete_unregistered(self, abandoned)
