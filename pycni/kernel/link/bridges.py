"""The attribute `bridges` of a namespace: bridges, their ports, and gateways in their VLANs."""

from __future__ import annotations

import errno

from pycni.kernel.link.link import Link, find_link, get_link, random_mac
from pycni.kernel.link.links import Links
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, explain_errors, link_message
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.errors import CniError

_NO_MAC = "00:00:00:00:00:00"


class Bridges(NetnsOperations):
    """The bridges of a network namespace."""

    __slots__ = ()

    def ensure(self, name: str, *, mtu: int | None = None, promisc: bool = False, vlan_filtering: bool = False) -> Link:
        """Return the bridge called `name`, up and with a MAC; create it if it does not exist.

        `mtu`, in bytes, is for a new bridge. Raises CniError if `name` is another kind of link.
        """
        bridge = find_link(self._netns, name) or self._create(name, mtu)
        if bridge.state.kind != "bridge":
            raise CniError(
                f'failed to create bridge "{name}": "{name}" already exists but is not a bridge',
                details=f'it is of kind "{bridge.state.kind or "physical"}"; choose another name with "bridge"',
            )
        bridge.ignore_router_advertisements()  # even if others created it: containers are attached to it from now on
        if vlan_filtering and not bridge.state.vlan_filtering:
            self._enable_vlan_filtering(bridge)
        state = bridge.state
        if not state.up or (promisc and not state.promisc) or state.mac in ("", _NO_MAC):
            bridge.ensure(
                up=True,
                promisc=True if promisc else None,
                mac=random_mac() if state.mac in ("", _NO_MAC) else None,
            )
        return bridge

    def _create(self, name: str, mtu: int | None) -> Link:
        # Without a MAC of its own, a bridge takes the lowest MAC of its ports and changes it as ports come and go.
        attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac())] + ([("IFLA_MTU", mtu)] if mtu else [])
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})

        def do() -> None:
            with explain_errors(f'failed to create bridge "{name}"'):
                (outcome,) = self._netns.netlink.outcomes(
                    link_message(rtnetlink.NEWLINK, [*attributes, kind], how=rtnetlink.CREATE_NEW)
                )
                # EEXIST: another ADD has just created it.
                if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
                    raise outcome
            get_link(self._netns, name).skip_duplicate_address_detection()

        self._netns.journal.change(f"create bridge {name}", do)
        return get_link(self._netns, name)

    def attach(self, port: Link, bridge: Link, *, hairpin: bool = False, isolated: bool = False) -> None:
        """Make the link a port of the bridge and set it up; the bridge keeps its MAC.

        `hairpin` lets frames leave by the port that they came from. `isolated` keeps the port from reaching other
        isolated ports. Raises CniError.
        """
        mac = bridge.mac
        # A bridge created by others may have no MAC of its own: it takes the port's MAC if that is lower. Setting the
        # MAC, even to the same value, makes it the bridge's own.
        if port.attach_to(bridge, hairpin=hairpin, isolated=isolated) == port.mac != mac:
            bridge.refresh()
            bridge.ensure(mac=mac)

    def ensure_vlan_gateway(self, bridge: Link, vlan: int, *, keep_default: bool = False) -> Link:
        """Return the link `<bridge>.<vlan>`, up: a veth whose peer is a port of the bridge in this VLAN.

        It holds the gateway addresses of the VLAN. It is created if it does not exist; with `keep_default` the peer
        then stays in the default VLAN of the bridge too. Raises CniError.
        """
        name = f"{bridge}.{vlan}"
        gateway = find_link(self._netns, name) or self._create_vlan_gateway(name, mtu=bridge.state.mtu)
        port = Links(self._netns).find_peer(gateway)
        # The call that created the veth may not have attached it yet, or may have been killed before.
        if port is not None and port.state.master != bridge.index:
            self.attach(port, bridge)
        if port is not None and vlan not in port.port_vlans():
            port.set_port_vlans(untagged=vlan, tagged=(), keep_default=keep_default)
        gateway.ensure(up=True)
        return gateway

    def _create_vlan_gateway(self, name: str, mtu: int) -> Link:
        end = {"attrs": [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac()), ("IFLA_MTU", mtu)]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", end)]})]}
        port = [("IFLA_IFNAME", f"veth{random_mac().replace(':', '')[:11]}"), ("IFLA_MTU", mtu)]
        creation = link_message(rtnetlink.NEWLINK, [*port, ("IFLA_LINKINFO", pair)], how=rtnetlink.CREATE_NEW)

        def do() -> None:
            (outcome,) = self._netns.netlink.outcomes(creation)
            # EEXIST: another ADD has just created it.
            if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
                raise CniError(
                    f"cannot create {name}, the gateway of its VLAN: {outcome}",
                    details="the names of bridge and VLAN together have at most 14 characters",
                )
            gateway = get_link(self._netns, name)
            gateway.ignore_router_advertisements()
            gateway.skip_duplicate_address_detection()

        self._netns.journal.change(f"create {name}, the gateway of its VLAN", do)
        return get_link(self._netns, name)

    def _enable_vlan_filtering(self, bridge: Link) -> None:
        data = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]})]
        message = bridge.set_request(("IFLA_LINKINFO", {"attrs": data}))

        def do() -> None:
            with explain_errors(f"cannot filter VLANs on bridge {bridge}"):
                (outcome,) = self._netns.netlink.outcomes(message)
                if isinstance(outcome, NetlinkError) and outcome.errno != errno.EOPNOTSUPP:
                    raise outcome
            if not bridge.refresh().vlan_filtering:  # some kernels without it report success
                raise CniError(
                    f"cannot filter VLANs on bridge {bridge}: this kernel has no bridge VLAN filtering",
                    details="vlan and vlanTrunk need a kernel built with CONFIG_BRIDGE_VLAN_FILTERING",
                )

        self._netns.journal.change(f"filter VLANs on bridge {bridge}", do)
