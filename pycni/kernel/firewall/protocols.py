"""Contracts of the firewall backends, one Protocol per concern.

A backend object is bound to one network namespace. These rules hold for all methods:

- `create` runs through the journal, so that a failed ADD removes what it created. IPAM has assigned the addresses to
  this owner, so rules and elements that another attachment left behind for the same addresses are replaced.
- `expect` changes nothing and raises CniError, which names the first missing rule or element.
- `delete` removes everything of one attachment (`Owner`), or of all attachments of a network that are no longer valid
  (`Stale`). It succeeds if nothing is there, and if the backend is not installed.
- Rules that a Go plugin created with the same backend count: `expect` accepts them, `delete` removes them.
- All methods raise CniError if the backend fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pycni.kernel.firewall.port_mappings import HostPorts, UdpPort
    from pycni.kernel.firewall.settings import BridgeIsolation, FirewallSettings
    from pycni.kernel.owner import Owner, Stale
    from pycni.protocol.address import Address, Cidr


class MasqueradeBackend(Protocol):
    """Masquerading (source NAT to the host's address) of what containers send."""

    def create(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        """Masquerade packets from these addresses, except to their own subnets and to multicast.

        cidrs: the container's addresses, each with the prefix length of its subnet.
        """

    def expect(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        """Raise CniError unless all of these addresses are masqueraded."""

    def delete(self, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()) -> None:
        """Stop masquerading the owner's addresses.

        cidrs: the addresses of the owner; if None, the backend finds them.
        kept: without `cidrs`, addresses to leave alone because other interfaces of the container have them. iptables
            rules name the container but not the interface. nftables elements carry the label, so it ignores `kept`.
        """


class HostPortsBackend(Protocol):
    """Host ports: DNAT from ports of the host to ports of a container."""

    def create(self, ports: HostPorts, owner: Owner) -> None:
        """Map the host ports to the container. Raises CniError, code 11, if this backend maps one to another container.

        Two networks of one container may map the same port: the first one receives the packets.
        """

    def ensure_free(self, ports: HostPorts, owner: Owner) -> None:
        """Raise CniError, code 11, if this backend maps one of the host ports to another container.

        A mapping to an address in `ports` is stale and does not count, since IPAM has assigned the address to `owner`.
        iptables removes it, because it would take precedence over one made by nftables.
        """

    def expect(self, ports: HostPorts, owner: Owner) -> None:
        """Raise CniError unless all of the host ports are mapped to the container."""

    def has(self, owner: Owner) -> bool:
        """Return whether this backend has host ports of the owner (iptables: of its container on its network)."""

    def delete(self, owner: Owner | Stale, ports: HostPorts | None = None) -> list[UdpPort]:
        """Remove all host ports of the owner, and return those that were UDP ports.

        ports: what the owner is expected to have. It is only a hint: nftables need not list its table if it is right;
            iptables can tell the addresses of this interface from those of other interfaces of the container.
        """


class ForwardRulesBackend(Protocol):
    """Forward rules: accept packets from a container, and replies and related packets to it."""

    def create(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        """Accept packets from these addresses, and packets to them that belong to established connections."""

    def expect(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        """Raise CniError unless the packets of all these addresses are accepted."""

    def delete(
        self,
        owner: Owner | Stale,
        settings: FirewallSettings,
        ips: Sequence[Address] | None = None,
        *,
        unowned: bool = False,
    ) -> None:
        """Stop accepting packets of the owner's addresses.

        ips: addresses the owner may have; if None, the backend finds them.
        unowned: also delete the rules of those `ips` for which no owner is recorded: a Go plugin made them.
        """


class IsolationBackend(Protocol):
    """Isolation of a bridge: forwarding between two isolated bridges is dropped, and within a strict one too.

    Several attachments share the isolation of a bridge. It lasts until the last of them is deleted. If they ask for
    different policies, the strictest applies (nftables) or the last one (iptables, as with the Go plugin).
    """

    def create(self, isolation: BridgeIsolation, owner: Owner) -> None:
        """Isolate the bridge on behalf of the owner."""

    def expect(self, isolation: BridgeIsolation, owner: Owner) -> None:
        """Raise CniError unless the bridge is isolated."""

    def delete(self, owner: Owner | Stale, isolation: BridgeIsolation | None = None) -> None:
        """Withdraw the owner's request to isolate bridges.

        isolation: the bridge and ports of the owner; if None, the backend finds them.
        """
