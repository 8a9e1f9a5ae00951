"""The state of a host link before it is moved into a container, and how it is restored afterwards."""

import errno
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from pycni.kernel.link import address_requests, routes
from pycni.kernel.link.link import Link
from pycni.kernel.link.link_state import find_state, find_state_at
from pycni.kernel.link.routes import SourceRoute
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError
from pycni.protocol.names import check_ifname

log = logging.getLogger(__name__)

# The configurable settings of a bridge port. The kernel finds out the others itself, such as the path cost.
_PORT_SETTINGS = frozenset(
    f"IFLA_BRPORT_{setting}"
    for setting in (
        *("PRIORITY", "MODE", "GUARD", "PROTECT", "FAST_LEAVE", "LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD"),
        *("BCAST_FLOOD", "MCAST_TO_UCAST", "MULTICAST_ROUTER", "PROXYARP", "PROXYARP_WIFI", "NEIGH_SUPPRESS"),
        *("VLAN_TUNNEL", "ISOLATED", "LOCKED", "MAB"),
    )
)
_BATCH = 100  # messages: the receive buffer of the socket holds the answers to so many
_Step = tuple[str, Message]  # what cannot be done if the request fails, as in "set eth0 up", and the request


@dataclass(frozen=True, slots=True)
class SavedLink:
    """The state of a link before it was moved. None means unknown: the property is not restored."""

    name: str
    mac: str | None = None
    mtu: int | None = None
    promisc: bool | None = None
    allmulti: bool | None = None
    txqlen: int | None = None
    up: bool = False
    alias: str = ""
    cidrs: tuple[Cidr, ...] = ()
    routes: tuple[SourceRoute, ...] = ()
    master: str = ""  # name of the bridge, VRF or bond
    port: tuple[tuple[str, int], ...] = ()  # its settings as a bridge port, by their names in the kernel
    vlans: tuple[tuple[int, int], ...] = ()  # its VLANs as a bridge port: ids and flags

    @classmethod
    def read(cls, link: Link) -> Self:
        """Return the present state of the link, with its permanent addresses and routes."""
        state = link.refresh()
        master = find_state_at(link.netns, state.master) if state.master else None
        is_port = master is not None and master.kind == "bridge"
        return cls(
            name=state.name,
            mac=None if master is not None and master.kind == "bond" else state.mac,  # a bond gives it the bond's MAC
            mtu=state.mtu,
            promisc=state.promisc,
            allmulti=state.allmulti,
            txqlen=state.txqlen,
            up=state.up,
            alias="" if state.alias == state.name else state.alias,
            cidrs=tuple(address_requests.list_permanent(link)),
            routes=tuple(routes.permanent(link)),
            master="" if master is None else master.name,
            port=tuple(link.port_settings(_PORT_SETTINGS).items()) if is_port else (),
            vlans=tuple(link.port_vlans().items()) if is_port else (),
        )

    @staticmethod
    def alias_is_name(link: Link) -> bool:
        """Return whether the alias of the link can be the name that it had before it was moved."""
        try:
            check_ifname(link.state.alias)
        except CniError:
            return False
        return True


def restore(link: Link, saved: SavedLink) -> None:
    """Restore the state of a link that is back in its namespace. Log what cannot be restored."""
    _send(link, saved, [*_properties(link, saved), *_membership(link, saved)])
    _send(link, saved, [*_vlans(link, saved), *_addresses(link, saved), *_up(link, saved)])
    _send(link, saved, _routes(link, saved), tolerated=errno.EEXIST)  # others may have added such a route meanwhile
    _send(link, saved, _alias(link, saved))  # last: the alias marks a link that has yet to be restored


def _send(link: Link, saved: SavedLink, steps: Iterable[_Step], *, tolerated: int = 0) -> None:
    sent, outcomes = list(steps), []
    for first in range(0, len(sent), _BATCH):
        outcomes += link.netns.netlink.outcomes(*[message for _, message in sent[first : first + _BATCH]])
    for (words, _), outcome in zip(sent, outcomes, strict=True):
        if isinstance(outcome, NetlinkError) and outcome.errno != tolerated:
            log.warning("%s was moved back, but cannot %s: %s", saved.name, words, outcome)


def _properties(link: Link, saved: SavedLink) -> Iterator[_Step]:
    if link.name != saved.name:
        yield "be set down", link.change_request("up", False)  # some kernels rename only links that are down
        yield f"be renamed to {saved.name}", link.set_request(("IFLA_IFNAME", saved.name))
    for key in ("mac", "mtu", "promisc", "allmulti", "txqlen"):
        value = getattr(saved, key)
        if value not in (None, getattr(link.state, key)):
            yield f"be given {key} {value}", link.change_request(key, value)


def _membership(link: Link, saved: SavedLink) -> Iterator[_Step]:
    if not saved.master:
        return
    master = find_state(link.netns, saved.master)
    if master is None:
        log.warning("%s was moved back, but its master %s is gone", saved.name, saved.master)
        return
    # A bond accepts only links that are down.
    yield f"be made a member of {saved.master}", link.set_request(("IFLA_MASTER", master.index))
    if saved.port:
        port = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": saved.port})]
        yield f"get its port settings of {saved.master}", link.set_request(("IFLA_LINKINFO", {"attrs": port}))


def _vlans(link: Link, saved: SavedLink) -> Iterator[_Step]:
    state = find_state_at(link.netns, link.index)
    if saved.port and state is not None and state.master:
        for message in link.port_vlan_requests(dict(saved.vlans)):
            yield f"be put into its VLANs of {saved.master}", message


def _addresses(link: Link, saved: SavedLink) -> Iterator[_Step]:
    present = address_requests.list_with_flags(link)
    for cidr in saved.cidrs:
        if cidr not in present:
            yield f"be given {cidr}", address_requests.addition(link.index, cidr)


def _up(link: Link, saved: SavedLink) -> Iterator[_Step]:
    if saved.up:
        yield "be set up", link.change_request("up", True)


def _alias(link: Link, saved: SavedLink) -> Iterator[_Step]:
    yield f'be given the alias "{saved.alias}"', link.change_request("alias", saved.alias)


def _routes(link: Link, saved: SavedLink) -> Iterator[_Step]:
    for route in saved.routes:
        words = f"be given the route to {route.dst}" + (f" via {route.gw}" if route.gw else "")
        yield words, routes.addition(link.index, route, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
