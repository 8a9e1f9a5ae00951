"""What plugins speak to: a network namespace with the verbs of its links, its settings and its firewall."""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from pycni.kernel import (
    addresses,
    configure,
    containerlink,
    forward,
    hostports,
    isolation,
    links,
    lock,
    masquerade,
    moves,
    netlink,
    qdiscs,
    readdress,
    routes,
    rules,
    sysctl,
    taps,
    vrf,
)
from pycni.kernel.door import OWN, Door
from pycni.kernel.journal import Journal
from pycni.kernel.links import UP, Link, Value, explained, random_mac
from pycni.kernel.netlink import NetlinkError, link_message
from pycni.kernel.nftables import nft, spoofcheck
from pycni.kernel.owner import Owner, Stale
from pycni.kernel.portmappings import HostPorts
from pycni.kernel.routes import SourceRoute
from pycni.kernel.rules import Rule
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError
from pycni.protocol.result import Route

if TYPE_CHECKING:
    from pycni.kernel.firewall import Firewall
    from pycni.kernel.isolation import Fence
    from pycni.kernel.moves import Home
    from pycni.kernel.ratelimit import RateLimit
    from pycni.kernel.readdress import RouteChange
    from pycni.kernel.routes import SourceRoute
    from pycni.kernel.taps import Tap

_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_NO_MAC = "00:00:00:00:00:00"
_CARRIER_DEADLINE, _CARRIER_PAUSE = 2.0, 0.001  # seconds


class Namespace(Door):
    """A network namespace and what can be done in it; every change goes through the journal."""

    @classmethod
    def own(cls, journal: Journal) -> Namespace:
        """The namespace this thread is in: the host, as the runtime sees it."""
        return cls(OWN, journal)

    @classmethod
    def at(cls, path: str) -> Namespace:
        """The namespace at the path, for what lives on between calls: what it changes stays.

        Raises CniError, code 8, if there is none.
        """
        return cls(path, Journal())

    # Links

    def find_link(self, name: str) -> Link | None:
        """The link called `name`, or None."""
        state = links.find_state(self, name)
        return None if state is None else Link(self, state)

    def link(self, name: str) -> Link:
        """The link called `name`. Raises CniError if there is none."""
        link = self.find_link(name)
        if link is None:
            raise CniError(f'link "{name}" not found')
        return link

    def expect_no_link(self, name: str) -> None:
        """Raise CniError if there is a link called `name`."""
        if self.find_link(name) is not None:
            raise CniError(
                f'interface "{name}" already exists in {self.path}', details="it needs a DEL before the next ADD"
            )

    def expect_no_peer(self, peer: str, name: str) -> None:
        """Raise CniError if there is a link called `peer`, which was to be the other end of a cable from `name`."""
        if self.find_link(peer) is not None:
            raise CniError(
                f'container veth name ("{peer}") peer provided ("{name}") already exists',
                details=f"{self.path} has an interface {peer}; it needs a DEL before the next ADD",
            )

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return [Link(self, state) for state in links.all_states(self)]

    def find_peer_of(self, other_end: Link) -> Link | None:
        """The link here whose cable leads to `other_end`, a veth in another namespace; None if it is not here."""
        state = links.find_state_at(self, other_end.state.peer) if other_end.state.peer else None
        return Link(self, state) if state is not None and state.peer == other_end.index else None

    def peer_of(self, other_end: Link) -> Link:
        """The same, where there must be one. Raises CniError."""
        peer = self.find_peer_of(other_end)
        if peer is None:
            raise CniError(f"the host's end of the cable to {other_end} is gone")
        return peer

    def create_veth(
        self, name: str, *, peer: str, peer_in: Namespace, mtu: int | None = None, mac: str = "", alias: str = ""
    ) -> tuple[Link, Link]:
        """A cable from here to `peer_in`: both ends with their final names and addresses, both still down."""
        size = [("IFLA_MTU", mtu)] if mtu else []
        end = [("IFLA_IFNAME", peer), ("IFLA_ADDRESS", mac or random_mac()), ("IFLA_NET_NS_FD", peer_in.fd), *size]
        data = {"attrs": [("VETH_INFO_PEER", {"attrs": end})]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
        own = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac()), ("IFLA_TXQLEN", 0), *size]
        creation = link_message(
            netlink.NEWLINK,
            [*own, ("IFLA_LINKINFO", pair)],
            flags=netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE,
        )
        naming = link_message(netlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)])

        def do() -> tuple[Link, Link]:
            messages = creation, naming, links.question(name)
            outcomes = self.netlink.outcomes(*messages)
            if isinstance(outcomes[0], NetlinkError) and outcomes[0].errno == errno.EEXIST:
                peer_in.expect_no_peer(peer, name)
                links.delete(self, name)  # left by an ADD of the same attachment that was killed half-way
                outcomes = self.netlink.outcomes(*messages)
            refusal = next((outcome for outcome in outcomes if isinstance(outcome, NetlinkError)), None)
            if refusal is not None:
                if not isinstance(outcomes[0], NetlinkError):
                    links.delete(self, name)
                with explained(f"cannot create veth {name} with peer {peer}"):
                    raise refusal
            (state,) = next(answers for answers in outcomes if answers and not isinstance(answers, NetlinkError))
            return Link(self, links.LinkState.of(state)), peer_in.link(peer)

        return self.journal.change(f"create veth {name} with peer {peer}", do, lambda: links.delete(self, name))

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

    def create_ifb(self, name: str, *, mtu: int, alias: str = "", also_called: str = "") -> Link:
        """A link that gives back what is redirected to it, up; `also_called` is a second name, if it is free."""
        flags = netlink.ACK | netlink.CREATE | netlink.EXCLUSIVE
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]})
        creation = link_message(
            netlink.NEWLINK,
            [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_TXQLEN", 0), kind],
            flags=flags,
        )
        naming = link_message(netlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)], flags_=UP, change=UP)
        second = ("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", also_called)]})
        properties = link_message(netlink.NEWLINKPROP, [("IFLA_IFNAME", name), second], flags=flags)

        def do() -> Link:
            links.delete(self, name)  # left by an ADD of the same attachment that was killed half-way
            with explained(f"cannot create ifb {name}"):
                (state,) = self.netlink.request(creation, naming, links.question(name))
            if also_called:
                self.netlink.outcomes(properties)
            return Link(self, links.LinkState.of(state))

        return self.journal.change(f"create ifb {name}", do, lambda: links.delete(self, name))

    def find_default_link(self) -> Link | None:
        """The link of the default route, IPv4's before IPv6's; None if there is none."""
        state = containerlink.find_default(self)
        return None if state is None else Link(self, state)

    def create_link(
        self,
        name: str,
        kind: str,
        owner: Owner,
        *,
        master: Link | None = None,
        mtu: int = 0,
        mac: str = "",
        settings: Mapping[str, Value] | None = None,
    ) -> Link:
        """A link of the container's own, still down; it stands on its `master`, which may be in another namespace.

        `settings` are what only links of its kind have, by the names of LinkState.
        """
        attributes = _size_and_mac(mtu, mac)
        return containerlink.create(
            self, name, kind, owner, master=master, attributes=attributes, settings=settings or {}
        )

    def create_tap(self, name: str, owner: Owner, tap: Tap, *, mtu: int = 0, mac: str = "") -> Link:
        """A tap, still down, which stays whether or not somebody opens it."""
        return taps.create(self, name, owner, tap, _size_and_mac(mtu, mac))

    def create_move(self, link: Link, there: Namespace, name: str, home: Home) -> Link:
        """Lend the link to another namespace, where it is called `name`; it comes home if the call fails."""
        return moves.create(link, there, name, home)

    def find_lent(self, home: Home, name: str) -> Link | None:
        """The link that was lent to this namespace, by its alias, or by this name and its MAC; None if it is gone."""
        return moves.find_away(self, home, name)

    def bring_home(self, link: Link, home: Home) -> None:
        """Bring the link of another namespace home to this one, and make it what it was. Raises CniError."""
        moves.bring_home(link, self, home)

    def welcome(self, home: Home, *, patient: bool) -> bool:
        """Make a link what it was that has come home by itself; says whether it is there."""
        return moves.welcome(self, home, patient=patient)

    def expect_kind(self, kind: str) -> None:
        """Raise CniError, code 50, unless the kernel has links of the kind."""
        containerlink.probe(self, kind)

    def expect_taps(self) -> None:
        """Raise CniError, code 50, unless taps can be made."""
        taps.probe()

    def delete_link(self, name: str) -> None:
        """Remove the link; a veth takes its other end along."""
        self.journal.attempt(f"delete link {name}", partial(links.delete, self, name))

    def wait_for_carrier(self, link: Link) -> None:
        """Wait until the link can carry frames (a port of a bridge: until it forwards). Raises CniError."""
        deadline = time.monotonic() + _CARRIER_DEADLINE
        while link.refresh().operstate != "UP":
            if time.monotonic() > deadline:
                what = "bridge port" if link.state.master else "link"
                raise CniError(f"{what} in error state: {link} is {link.state.operstate or 'unknown'}")
            time.sleep(_CARRIER_PAUSE)

    def wait_until_reachable(self, link: Link, cidrs: Iterable[Cidr]) -> None:
        """Wait until the link carries frames and hears who asks for these addresses of its own. Raises CniError.

        A link that carried frames when it was last looked at need not be waited for.
        """
        if link.state.operstate != "UP":
            self.wait_for_carrier(link)
        addresses.wait_until_heard(link, cidrs)

    def set_down(self, name: str) -> None:
        """Set the link down; one that is gone is down enough."""

        def do() -> None:
            link = self.find_link(name)
            if link is not None:
                link.ensure(up=False)

        self.journal.attempt(f"set {name} down", do)

    # Addresses and routes

    def addresses(self, link: Link) -> list[Cidr]:
        """The addresses of the link."""
        return list(addresses.on(link))

    def all_addresses(self) -> list[Cidr]:
        """Every address of the namespace."""
        return addresses.in_namespace(self)

    def configure(
        self,
        link: Link,
        cidrs: Sequence[Cidr],
        routes_: Sequence[Route],
        *,
        dad: bool = False,
        on_link: bool = True,
        on_lan: bool = False,
    ) -> None:
        """Give a link of ours its addresses, set it up, add its routes.

        Without `on_link` the rest of the subnets is not behind the link; its routes say where. With `on_lan` the link
        is on a network of others: it heeds their routers, and they hear of each address as it appears.
        """
        configure.configure(link, cidrs, routes_, dad=dad, on_link=on_link, on_lan=on_lan)

    def prepare(self, link: Link) -> None:
        """Set a link of ours up before its addresses are known."""
        configure.prepare(link)

    def readdress(self, link: Link, before: Sequence[Cidr], after: Sequence[Cidr], routes_: RouteChange) -> None:
        """Give a link that is in use other IPv4 addresses; what else there is of routes over it stays if it can."""
        readdress.readdress(link, before, after, routes_)

    def other_routes(self, link: Link, own: Sequence[Route]) -> tuple[SourceRoute, ...]:
        """The IPv4 routes over the link that somebody has made, but for these."""
        return readdress.others(link, own)

    def configure_port(self, port: Link, gateways: Sequence[Cidr], routes_: Sequence[Route]) -> None:
        """Give the host's end of a cable the gateways' addresses, set it up, add the routes to the container."""
        configure.configure_port(port, gateways, routes_)

    def announce(self, link: Link) -> None:
        """Tell the neighbours where the link's addresses live now, by gratuitous ARP and neighbour advertisements."""

        def do() -> None:
            with explained(f"cannot announce {link}"):
                self.netlink.request(configure.announcement(link))

        self.journal.change(f"announce {link}", do)

    def ensure_address(self, link: Link, cidr: Cidr, *, force: bool = False) -> None:
        """Give a shared link an address; with `force` one that is in the way goes."""
        addresses.ensure(link, cidr, force=force)

    def expect_address(self, link: Link, cidr: Cidr) -> None:
        """Raise CniError unless the link has the address."""
        addresses.expect(link, cidr)

    def expect_route(self, link: Link, route: Route) -> None:
        """Raise CniError unless the route is there, over this link."""
        routes.expect(link, route)

    def routes_of(self, link: Link, version: int) -> list[SourceRoute]:
        """The routes of a family over the link in table main, but for those of IPv6 that never leave the link."""
        return routes.of(link, version)

    def create_route(self, link: Link, route: Route) -> None:
        """A route over the link, in the place of one to the same destination in its table."""
        routes.create(link, route)

    def withdraw_route(self, link: Link, route: Route) -> None:
        """Take the route away; it comes back if ADD fails."""
        routes.withdraw(link, route)

    def locked(self, doing: str) -> AbstractContextManager[None]:
        """Keep others of ours from doing the same in the namespace, `doing` as in "choosing a routing table"."""
        return lock.locked(self, doing)

    def create_source_rule(self, source: Address, table: int | None = None) -> int:
        """Route what comes from the address by a table, a free one unless it is named; returns which."""
        if table is None:
            table = rules.free_table(self)
        rules.create(self, Rule(source, table))
        return table

    def expect_source_rule(self, source: Address, table: int | None = None) -> int:
        """Raise CniError unless what comes from the address is routed by a table, `table` if named; returns which."""
        return rules.expect(self, source, table)

    def delete_source_rules(self, sources: Collection[Address], table: int | None = None) -> None:
        """Route what comes from these addresses as everything else: by the table no more, or by none of its own."""
        self.journal.attempt("delete rules of source addresses", partial(rules.delete, self, sources, table))

    def ensure_vrf(self, name: str, table: int | None = None) -> Link:
        """The VRF called `name`, up, made if it is missing: with the table, or if none is given with a free one.

        To be called, like `join_vrf`, while the choice of tables is locked; CniError if it is not such a VRF.
        """
        return vrf.ensure(self, name, table)

    def join_vrf(self, link: Link, master: Link) -> None:
        """Make the link a member of the VRF; its addresses and routes come along, and go back if the call fails."""
        vrf.join(link, master)

    def expect_in_vrf(self, link: Link, master: Link) -> None:
        """Raise CniError unless the link is a member of the VRF."""
        if link.refresh().master != master.index:
            raise CniError(f"failed to find {link} associated to vrf {master}")

    def leave_vrf(self, link: Link | None, name: str) -> None:
        """Take the link, if it is there, out of the VRF called `name`, which goes with its last member."""
        self.journal.attempt(f"leave VRF {name}", partial(vrf.leave, self, link, name))

    def ensure_forwarding(self, cidrs: Iterable[Cidr]) -> None:
        """Forward packets of the families of these addresses."""
        sysctl.ensure(self, {_FORWARDING[version]: "1" for version in sorted({cidr.version for cidr in cidrs})})

    # Traffic control

    def expect_unshaped(self, link: Link) -> None:
        """Raise CniError if the link is limited or redirected already."""
        qdiscs.refuse_taken(link)

    def create_limit(self, link: Link, limit: RateLimit) -> None:
        """Let the link send no faster than the limit."""
        qdiscs.create_limit(link, limit)

    def expect_limit(self, link: Link, limit: RateLimit) -> None:
        """Raise CniError unless the link is limited so, in rate, burst and latency."""
        qdiscs.expect_limit(link, limit)

    def create_redirect(self, link: Link, to: Link) -> None:
        """Let everything that the link receives pass through `to` first."""
        qdiscs.create_redirect(link, to)

    def expect_redirect(self, link: Link, to: Link) -> None:
        """Raise CniError unless what the link receives passes through `to`."""
        qdiscs.expect_redirect(link, to)

    def delete_shaping(self, link: Link) -> None:
        """Limit and redirect the link no more."""
        self.journal.attempt(f"shape the traffic of {link} no more", lambda: qdiscs.delete(link))

    def redirect_targets(self) -> set[int]:
        """The indexes of the links through which passes what other links receive."""
        return qdiscs.targets_of(self.links())

    def expect_traffic_control(self) -> None:
        """Raise CniError, code 50, unless traffic can be limited."""
        qdiscs.probe(self.link("lo"))

    # Settings

    def set_sysctls(self, settings: Mapping[str, str]) -> None:
        """Give each setting (a path under /proc/sys/net) its value; it is put back if the call fails."""
        sysctl.change(self, settings)

    def expect_writable_sysctls(self) -> None:
        """Raise CniError, code 50, if this process may not change settings."""
        sysctl.probe(self)

    def expect_sysctls(self, settings: Mapping[str, str]) -> None:
        """Raise CniError for the first setting that has another value."""
        sysctl.expect(self, settings)

    # Firewall

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

    def create_isolation(self, fence: Fence, owner: Owner, firewall: Firewall) -> None:
        """Keep the bridge apart from all others that are kept apart, and its ports from each other if it is strict."""
        isolation.create(self, fence, owner, firewall)

    def expect_isolation(self, fence: Fence, owner: Owner, firewall: Firewall) -> None:
        """Raise CniError unless the bridge is kept apart: by the backend, or by any if none is named."""
        isolation.expect(self, fence, owner, firewall)

    def delete_isolation(self, owner: Owner | Stale, fence: Fence | None = None) -> None:
        """Let go of the fence, by whichever backend; it goes with the last who needs it."""
        isolation.delete(self, owner, fence)

    def create_spoof_check(self, port: Link, mac: str, owner: Owner) -> None:
        """Drop what the bridge port sends from any other hardware address."""
        spoofcheck.create(self, port.name, mac, owner)

    def expect_spoof_check(self, port: Link, mac: str, owner: Owner) -> None:
        """Raise CniError unless the bridge port is guarded."""
        spoofcheck.expect(self, port.name, mac, owner)

    def delete_spoof_check(self, owner: Owner | Stale) -> None:
        """Guard the owner's port no more."""
        self.journal.attempt("delete spoof check", partial(spoofcheck.delete, self, owner))

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

    # Garbage

    def delete_stale(self, stale: Stale) -> None:
        """Remove every link and every firewall element that belongs to no valid attachment of the network."""
        for link in self.links():
            if stale.owns(link.state.alias):
                self.delete_link(link.name)
        self.delete_masquerade(stale)
        self.delete_spoof_check(stale)


def _size_and_mac(mtu: int, mac: str) -> list[tuple[str, Any]]:
    return ([("IFLA_MTU", mtu)] if mtu else []) + ([("IFLA_ADDRESS", mac)] if mac else [])


class NoNamespace:
    """Stands in for a container's namespace that is gone: there is nothing in it, and nothing to delete."""

    path = ""

    def find_link(self, name: str) -> None:  # noqa: ARG002 - as Namespace has it
        """There is no link."""
        return

    def delete_link(self, name: str) -> None:
        """It went with its namespace."""

    def set_down(self, name: str) -> None:
        """It went with its namespace."""

    def delete_source_rules(self, sources: Collection[Address], table: int | None = None) -> None:
        """They went with their namespace."""

    def leave_vrf(self, link: Link | None, name: str) -> None:
        """They went with their namespace."""

    def all_addresses(self) -> list[Cidr]:
        """There is none."""
        return []

    def close(self) -> None:
        """Nothing is open."""
