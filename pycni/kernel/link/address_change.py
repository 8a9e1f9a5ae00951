"""Replacement of IPv4 addresses of an interface that is in use, as when a DHCP server assigns another address."""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pycni.kernel.link import address_requests, routes
from pycni.kernel.link.link import Link
from pycni.kernel.link.routes import Routes, SourceRoute, route_key
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors
from pycni.protocol.address import Cidr
from pycni.protocol.result import Route

log = logging.getLogger(__name__)

_GONE = frozenset({errno.EADDRNOTAVAIL, errno.ESRCH})


@dataclass(frozen=True, slots=True)
class RouteChange:
    """The routes that belong to the former addresses, and those that belong to the new ones."""

    before: tuple[Route, ...] = ()
    after: tuple[Route, ...] = ()
    kept: tuple[SourceRoute, ...] = ()  # routes of others that were lost with earlier addresses


def replace_addresses(link: Link, before: Sequence[Cidr], after: Sequence[Cidr], change: RouteChange) -> None:
    """Remove the former addresses with their routes, and add the new ones with theirs. Raises CniError.

    When the kernel removes the last IPv4 address of a link, it removes all IPv4 routes over the link. The routes of
    others are added again, unless their gateways can no longer be reached.
    """
    words = f"from {', '.join(map(str, before)) or 'none'} to {', '.join(map(str, after)) or 'none'}"
    link.netns.journal.change(f"change the addresses of {link} {words}", lambda: _replace(link, before, after, change))


def _replace(link: Link, before: Sequence[Cidr], after: Sequence[Cidr], change: RouteChange) -> None:
    kept = dict.fromkeys((*change.kept, *Routes(link.netns).added_by_others(link, change.before)))
    old, new = [cidr for cidr in before if cidr not in after], [cidr for cidr in after if cidr not in before]
    removals = [routes.removal(link.index, route) for route in change.before if route not in change.after]
    removals += [address_requests.removal(link.index, cidr) for cidr in old]
    _send(link, f"remove {', '.join(map(str, old))} from {link}", removals, tolerated=_GONE)
    if not after:
        return
    _send(link, f"add {', '.join(map(str, new))} to {link}", [address_requests.addition(link.index, c) for c in new])
    _send(link, "add the routes of the new address", [routes.addition(link.index, route) for route in change.after])
    replaced = {route_key(route)[:3] for route in change.after}
    own = {cidr.ip for cidr in address_requests.list_with_flags(link)}
    for route in kept:
        if route_key(route)[:3] in replaced:
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
            with explain_errors(f"cannot {what}"):
                raise outcome
