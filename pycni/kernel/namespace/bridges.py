"""Bridges of the host, and the gateways in their VLANs."""

from __future__ import annotations

import errno

from pycni.kernel import netlink
from pycni.kernel.links import Link, explained, random_mac
from pycni.kernel.namespace.links import LinkVerbs
from pycni.kernel.netlink import NetlinkError, link_message
from pycni.protocol.errors import CniError

_NO_MAC = "00:00:00:00:00:00"


class BridgeVerbs(LinkVerbs):
    """The verbs of bridges."""

    def ensure_bridge(
        self, name: str, *, mtu: int | None = None, promisc: bool = False, vlan_filtering: bool = False
    ) -> Link:
        """The bridge called `name`, made if it is missing; it is up, with an address of its own."""
        bridge = self.find_link(name) or self._new_bridge(name, mtu)
        if bridge.state.kind != "bridge":
            raise CniError(
                f'failed to create bridge "{name}": "{name}" already exists but is not a bridge',
                details=f'it is of kind "{bridge.state.kind or "physical"}"; choose another name with "bridge"',
            )
        if vlan_filtering and not bridge.state.vlan_filtering:
            self._filter_vlans(bridge)
        state = bridge.state
        if not state.up or (promisc and not state.promisc) or state.mac in ("", _NO_MAC):
            bridge.ensure(
                up=True,
                promisc=True if promisc else None,
                mac=random_mac() if state.mac in ("", _NO_MAC) else None,
            )
        return bridge

    def _new_bridge(self, name: str, mtu: int | None) -> Link:
        # Left to itself, a bridge takes the lowest MAC of its ports and changes it as they come and go.
        attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac())] + ([("IFLA_MTU", mtu)] if mtu else [])
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})
        flags = netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE

        def do() -> None:
            with explained(f'failed to create bridge "{name}"'):
                (outcome,) = self.netlink.outcomes(link_message(netlink.NEWLINK, [*attributes, kind], flags=flags))
                if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:  # a simultaneous ADD was first
                    raise outcome
            bridge = self.link(name)
            bridge.refuse_router_advertisements()
            bridge.skip_duplicate_address_detection()

        self.journal.change(f"create bridge {name}", do)
        return self.link(name)

    def ensure_vlan_gateway(self, bridge: Link, vlan: int) -> Link:
        """A link of the host in one VLAN of the bridge, to hold the gateway's addresses: `<bridge>.<vlan>`."""
        name = f"{bridge}.{vlan}"
        holder = self.find_link(name)
        if holder is None:
            port, holder = self._new_vlan_gateway(name, mtu=bridge.state.mtu)
            port.plug_into(bridge, hairpin=False, isolated=False)
            port.set_port_vlans(untagged=vlan, tagged=(), keep_default=False)
            holder.refuse_router_advertisements()
            holder.skip_duplicate_address_detection()
        holder.ensure(up=True)
        return holder

    def _new_vlan_gateway(self, name: str, mtu: int) -> tuple[Link, Link]:
        try:
            return self.create_veth(f"veth{random_mac().replace(':', '')[:11]}", peer=name, peer_in=self, mtu=mtu)
        except CniError as error:
            raise CniError(
                f"cannot make {name}, the gateway of its VLAN: {error}",
                details="the names of bridge and VLAN together have at most 14 characters",
            ) from None

    def _filter_vlans(self, bridge: Link) -> None:
        data = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]})]
        message = link_message(netlink.NEWLINK, [("IFLA_LINKINFO", {"attrs": data})], index=bridge.index)

        def do() -> None:
            with explained(f"cannot filter VLANs on bridge {bridge}"):
                (outcome,) = self.netlink.outcomes(message)
                if isinstance(outcome, NetlinkError) and outcome.errno != errno.EOPNOTSUPP:
                    raise outcome
            if not bridge.refresh().vlan_filtering:  # some kernels without it say so, others just ignore the request
                raise CniError(
                    f"cannot filter VLANs on bridge {bridge}: this kernel has no bridge VLAN filtering",
                    details="vlan and vlanTrunk need a kernel built with CONFIG_BRIDGE_VLAN_FILTERING",
                )

        self.journal.change(f"filter VLANs on bridge {bridge}", do)
