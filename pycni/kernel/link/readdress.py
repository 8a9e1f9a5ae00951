"""Another address for an interface that is in use, as when a DHCP server gives one: routes survive where they can."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pycni.kernel.link import addresses, routes
from pycni.kernel.link.links import Link, explained
from pycni.kernel.link.routes import SourceRoute
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.protocol.address import Cidr
from pycni.protocol.result import Route

log = logging.getLogger(__name__)

_GONE = frozenset({errno.EADDRNOTAVAIL, errno.ESRCH})


@dataclass(frozen=True, slots=True)
class RouteChange:
    """The routes that came with the former addresses, and those that come with the new ones."""

    before: tuple[Route, ...] = ()
    after: tuple[Route, ...] = ()
    kept: tuple[SourceRoute, ...] = ()  # others, which had to go with the former addresses and may come back


def readdress(link: Link, before: Sequence[Cidr], after: Sequence[Cidr], change: RouteChange) -> None:
    """Take the former addresses away with their routes, and give the link the new ones with theirs.

    The last IPv4 address of a link takes all routes with it: those of others come back, unless there is no way to
    their gateways any more.
    """
    words = f"{', '.join(map(str, before)) or 'no address'} for {', '.join(map(str, after)) or 'none'}"
    link.netns.journal.change(f"change on {link} {words}", lambda: _readdress(link, before, after, change))


def others(link: Link, own: Sequence[Route]) -> tuple[SourceRoute, ...]:
    """The routes over the link that are none of these."""
    known = {_key(route) for route in own}
    return tuple(route for route in routes.made_on(link, 4) if _key(route) not in known)


def _readdress(link: Link, before: Sequence[Cidr], after: Sequence[Cidr], change: RouteChange) -> None:
    kept = dict.fromkeys((*change.kept, *others(link, change.before)))
    going, coming = [cidr for cidr in before if cidr not in after], [cidr for cidr in after if cidr not in before]
    removals = [routes.removal(link.index, route) for route in change.before if route not in change.after]
    removals += [addresses.removal(link.index, cidr) for cidr in going]
    _send(link, f"take {', '.join(map(str, going))} from {link}", removals, tolerated=_GONE)
    if not after:
        return
    _send(link, f"give {', '.join(map(str, coming))} to {link}", [addresses.addition(link.index, c) for c in coming])
    _send(link, "add the routes that come with it", [routes.addition(link.index, route) for route in change.after])
    taken = {_key(route)[:3] for route in change.after}
    own = {cidr.ip for cidr in addresses.on(link)}
    for route in kept:
        if _key(route)[:3] in taken:
            continue
        again = route if route.source in own else replace(route, source=None)
        (outcome,) = link.netns.netlink.outcomes(routes.addition(link.index, again))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
            log.warning("the route to %s via %s is lost with the address of %s: %s", route.dst, route.gw, link, outcome)


def _send(
    link: Link, what: str, messages: list[Message], tolerated: frozenset[int] = frozenset({errno.EEXIST})
) -> None:
    for outcome in link.netns.netlink.outcomes(*messages):
        if isinstance(outcome, NetlinkError) and outcome.errno not in tolerated:
            with explained(f"cannot {what}"):
                raise outcome


def _key(route: Route) -> tuple[object, ...]:
    table = routes.MAIN if route.table is None else route.table
    gateway = None if route.gw is None or route.gw.is_unspecified else route.gw
    return route.dst.network, table, route.priority, gateway
