"""Bridges of the host, and the gateways in their VLANs."""

from __future__ import annotations

import errno

from pycni.kernel.link.links import Link, explained, random_mac
from pycni.kernel.namespace.links import LinkVerbs
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
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
        bridge.refuse_router_advertisements()  # whoever has made it: its ports are of containers now
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
        flags = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE

        def do() -> None:
            with explained(f'failed to create bridge "{name}"'):
                (outcome,) = self.netlink.outcomes(link_message(rtnetlink.NEWLINK, [*attributes, kind], how=flags))
                if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:  # a simultaneous ADD was first
                    raise outcome
            self.link(name).skip_duplicate_address_detection()

        self.journal.change(f"create bridge {name}", do)
        return self.link(name)

    def plug(self, port: Link, bridge: Link, *, hairpin: bool = False, isolated: bool = False) -> None:
        """Make the link a port of the bridge, which keeps its address.

        One that others have made may take the lowest of its ports' until it is given one, even the one that it has.
        """
        mac = bridge.mac
        if port.plug_into(bridge, hairpin=hairpin, isolated=isolated) == port.mac != mac:
            bridge.refresh()
            bridge.ensure(mac=mac)

    def ensure_vlan_gateway(self, bridge: Link, vlan: int, *, keep_default: bool = False) -> Link:
        """A link of the host in one VLAN of the bridge, to hold the gateway's addresses: `<bridge>.<vlan>`.

        With `keep_default` one that is made hears the bridge's default VLAN too.
        """
        name = f"{bridge}.{vlan}"
        holder = self.find_link(name) or self._new_vlan_gateway(name, mtu=bridge.state.mtu)
        port = self.find_peer_of(holder)
        # Who has made the cable may not have plugged it in yet, or may have died before.
        if port is not None and port.state.master != bridge.index:
            self.plug(port, bridge)
        if port is not None and vlan not in port.port_vlans():
            port.set_port_vlans(untagged=vlan, tagged=(), keep_default=keep_default)
        holder.ensure(up=True)
        return holder

    def _new_vlan_gateway(self, name: str, mtu: int) -> Link:
        end = {"attrs": [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac()), ("IFLA_MTU", mtu)]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", end)]})]}
        port = [("IFLA_IFNAME", f"veth{random_mac().replace(':', '')[:11]}"), ("IFLA_MTU", mtu)]
        flags = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
        creation = link_message(rtnetlink.NEWLINK, [*port, ("IFLA_LINKINFO", pair)], how=flags)

        def do() -> None:
            (outcome,) = self.netlink.outcomes(creation)
            if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:  # a simultaneous ADD was first
                raise CniError(
                    f"cannot make {name}, the gateway of its VLAN: {outcome}",
                    details="the names of bridge and VLAN together have at most 14 characters",
                )
            holder = self.link(name)
            holder.refuse_router_advertisements()
            holder.skip_duplicate_address_detection()

        self.journal.change(f"create {name}, the gateway of its VLAN", do)
        return self.link(name)

    def _filter_vlans(self, bridge: Link) -> None:
        data = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]})]
        message = link_message(rtnetlink.NEWLINK, [("IFLA_LINKINFO", {"attrs": data})], index=bridge.index)

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
