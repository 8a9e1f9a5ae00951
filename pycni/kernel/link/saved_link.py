"""What a link is like where it belongs, so that one that has been away is made so again."""

import errno
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from pycni.kernel.link import addresses, links, routes
from pycni.kernel.link.links import Link
from pycni.kernel.link.routes import SourceRoute
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, link_message
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError
from pycni.protocol.names import check_ifname

log = logging.getLogger(__name__)

# What makes one port of a bridge differ from another, but for what the kernel finds out itself, such as its cost.
_OF_A_PORT = frozenset(
    f"IFLA_BRPORT_{setting}"
    for setting in (
        *("PRIORITY", "MODE", "GUARD", "PROTECT", "FAST_LEAVE", "LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD"),
        *("BCAST_FLOOD", "MCAST_TO_UCAST", "MULTICAST_ROUTER", "PROXYARP", "PROXYARP_WIFI", "NEIGH_SUPPRESS"),
        *("VLAN_TUNNEL", "ISOLATED", "LOCKED", "MAB"),
    )
)
_AT_ONCE = 100  # messages: a socket takes only so much
_Step = tuple[str, Message]  # what the link is after it, in words


@dataclass(frozen=True, slots=True)
class SavedLink:
    """What a link is like where it belongs. While it is away its alias is its name there."""

    name: str
    mac: str | None = None  # None leaves it as it is, also in what follows
    mtu: int | None = None
    promisc: bool | None = None
    allmulti: bool | None = None
    txqlen: int | None = None
    up: bool = False
    alias: str = ""
    cidrs: tuple[Cidr, ...] = ()
    routes: tuple[SourceRoute, ...] = ()
    master: str = ""  # the bridge, VRF or bond that it belongs to
    port: tuple[tuple[str, int], ...] = ()  # its settings as a port of that bridge, by the kernel's names
    vlans: tuple[tuple[int, int], ...] = ()  # the same for its VLANs: their numbers and flags

    @classmethod
    def of(cls, link: Link) -> Self:
        """What it is like now; of its addresses and routes those that somebody gave it for good."""
        state = link.refresh()
        master = links.find_state_at(link.netns, state.master) if state.master else None
        is_port = master is not None and master.kind == "bridge"
        return cls(
            name=state.name,
            mac=None if master is not None and master.kind == "bond" else state.mac,  # a bond lends out its own
            mtu=state.mtu,
            promisc=state.promisc,
            allmulti=state.allmulti,
            txqlen=state.txqlen,
            up=state.up,
            alias="" if state.alias == state.name else state.alias,
            cidrs=tuple(addresses.lasting_on(link)),
            routes=tuple(routes.lasting_on(link)),
            master="" if master is None else master.name,
            port=tuple(link.port_settings(_OF_A_PORT).items()) if is_port else (),
            vlans=tuple(link.port_vlans().items()) if is_port else (),
        )

    @staticmethod
    def is_known_to(link: Link) -> bool:
        """Whether the link's alias can be its name at home."""
        try:
            check_ifname(link.state.alias)
        except CniError:
            return False
        return True


def restore(link: Link, home: SavedLink) -> None:
    """Make a link that is at home what it was. What it cannot have again is logged: that it is there counts more."""
    _take(link, home, [*_identity(link, home), *_membership(link, home)])
    _take(link, home, [*_vlans(link, home), *_addresses(link, home), *_being_up(link, home)])
    _take(link, home, _ways(link, home), unless=errno.EEXIST)  # others may have found another way meanwhile
    _take(link, home, _alias(link, home))  # last: until then whoever comes next begins anew


def _take(link: Link, home: SavedLink, steps: Iterable[_Step], *, unless: int = 0) -> None:
    taken, outcomes = list(steps), []
    for first in range(0, len(taken), _AT_ONCE):
        outcomes += link.netns.netlink.outcomes(*[message for _, message in taken[first : first + _AT_ONCE]])
    for (words, _), outcome in zip(taken, outcomes, strict=True):
        if isinstance(outcome, NetlinkError) and outcome.errno != unless:
            log.warning("%s has come home, but cannot be %s: %s", home.name, words, outcome)


def _identity(link: Link, home: SavedLink) -> Iterator[_Step]:
    if link.name != home.name:
        yield "down", link.setting("up", False)  # as some kernels want it
        yield f"called {home.name}", _setting(link, "IFLA_IFNAME", home.name)
    for key in ("mac", "mtu", "promisc", "allmulti", "txqlen"):
        value = getattr(home, key)
        if value not in (None, getattr(link.state, key)):
            yield f"with {key} {value}", link.setting(key, value)


def _membership(link: Link, home: SavedLink) -> Iterator[_Step]:
    if not home.master:
        return
    master = links.find_state(link.netns, home.master)
    if master is None:
        log.warning("%s has come home, but %s, to which it belonged, is gone", home.name, home.master)
        return
    yield f"in {home.master}", _setting(link, "IFLA_MASTER", master.index)  # while it is down, as a bond wants it
    if home.port:
        port = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": home.port})]
        yield f"such a port of {home.master}", _setting(link, "IFLA_LINKINFO", {"attrs": port})


def _setting(link: Link, name: str, value: object) -> Message:
    return link_message(rtnetlink.NEWLINK, [(name, value)], index=link.index)


def _vlans(link: Link, home: SavedLink) -> Iterator[_Step]:
    state = links.find_state_at(link.netns, link.index)
    if home.port and state is not None and state.master:
        for message in link.port_vlan_changes(dict(home.vlans)):
            yield f"in its VLANs of {home.master}", message


def _addresses(link: Link, home: SavedLink) -> Iterator[_Step]:
    present = addresses.on(link)
    for cidr in home.cidrs:
        if cidr not in present:
            yield f"with {cidr}", addresses.addition(link.index, cidr)


def _being_up(link: Link, home: SavedLink) -> Iterator[_Step]:
    if home.up:
        yield "up", link.setting("up", True)


def _alias(link: Link, home: SavedLink) -> Iterator[_Step]:
    yield f'with the alias "{home.alias}"', link.setting("alias", home.alias)


def _ways(link: Link, home: SavedLink) -> Iterator[_Step]:
    for route in home.routes:
        words = f"the way to {route.dst}" + (f" by {route.gw}" if route.gw else "")
        yield words, routes.addition(link.index, route, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
