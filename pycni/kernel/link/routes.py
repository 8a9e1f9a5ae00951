"""The attribute `routes` of a namespace: add, remove, list and check routes."""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from typing import Any

from pycni.kernel.link import rules
from pycni.kernel.link.address_requests import FAMILIES, list_with_flags
from pycni.kernel.link.link import Link
from pycni.kernel.link.link_state import find_state_at
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError, Code
from pycni.protocol.result import Route

MAIN = 254
_KERNEL, _BOOT, _STATIC, _ROUTER = 2, 3, 4, 9  # RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_RA
_ONLINK = 4  # RTNH_F_ONLINK
_UNICAST, _LOCAL = 1, 2  # RTN_UNICAST, RTN_LOCAL
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_MAXIMA = {"mtu": 0xFFFFFFFF, "advmss": 0xFFFFFFFF, "priority": 0xFFFFFFFF, "table": 0xFFFFFFFF, "scope": 0xFF}


@dataclass(frozen=True, slots=True)
class SourceRoute(Route):
    """A route with the attributes that CNI results cannot express."""

    source: Address | None = None  # preferred source address
    protocol: int = _BOOT  # who added it: RTPROT_…
    gateway_is_on_link: bool = False  # even if no other route covers the gateway


def addition(index: int, route: Route, flags: int = rtnetlink.CREATE) -> Message:
    """Return the request that adds the route to the link with this index. Raises CniError for a number out of range."""
    return _message(rtnetlink.NEWROUTE, flags, index, route)


def removal(index: int, route: Route) -> Message:
    """Return the request that removes the route from the link with this index. Raises CniError, as `addition`."""
    return _message(rtnetlink.DELROUTE, 0, index, route)


def _message(kind: int, flags: int, index: int, route: Route) -> Message:
    _expect_numbers(route)
    table = MAIN if route.table is None else route.table
    gateway = None if route.gw is None or route.gw.is_unspecified else route.gw
    attributes: list[tuple[str, Any]] = [("RTA_OIF", index), ("RTA_TABLE", table)]
    if route.dst.network.prefixlen:
        attributes.append(("RTA_DST", str(route.dst.network.network_address)))
    if gateway is not None:
        attributes.append(("RTA_GATEWAY", str(gateway)))
    if isinstance(route, SourceRoute) and route.source is not None:
        attributes.append(("RTA_PREFSRC", str(route.source)))
    if route.priority:
        attributes.append(("RTA_PRIORITY", route.priority))
    metrics = [(name, value) for name, value in (("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)) if value]
    if metrics:
        attributes.append(("RTA_METRICS", {"attrs": metrics}))
    fields = {
        "family": FAMILIES[route.dst.version],
        "dst_len": route.dst.network.prefixlen,
        "table": table if table < 256 else 0,
        "proto": route.protocol if isinstance(route, SourceRoute) else _BOOT,
        "scope": _scope(route, on_link=gateway is None),
        "flags": _ONLINK if isinstance(route, SourceRoute) and route.gateway_is_on_link else 0,
        "type": _UNICAST,
    }
    return Message(kind, flags | rtnetlink.ACK, fields, attributes)


def _expect_numbers(route: Route) -> None:
    """Raise CniError, code 7, if a number of the route is out of the kernel's range."""
    for name, maximum in _MAXIMA.items():
        value = getattr(route, name)
        if value and not 0 <= value <= maximum:
            raise CniError(
                f"the route to {route.dst} cannot have {name} {value}: it is a number from 0 to {maximum}",
                code=Code.INVALID_NETWORK_CONFIG,
                details="the routes are those of IPAM; see its section of the configuration",
            )


def _scope(route: Route, *, on_link: bool) -> int:
    if route.scope is not None:
        return route.scope
    return _SCOPE_LINK if on_link and route.dst.version == 4 else _SCOPE_UNIVERSE


class Routes(NetnsOperations):
    """The routes of a network namespace."""

    __slots__ = ()

    def of(self, link: Link, version: int) -> list[SourceRoute]:
        """Return the routes of one family (4 or 6) over the link in table main.

        Link-local and multicast routes of IPv6 are left out.
        """
        found = _over(link, version, MAIN)
        return [route for route in found if version == 4 or not (route.dst.is_link_local or route.dst.is_multicast)]

    def added_by_others(self, link: Link, own: Sequence[Route]) -> tuple[SourceRoute, ...]:
        """Return the IPv4 routes over the link that are not in `own` and that the kernel did not add."""
        known = {route_key(route) for route in own}
        return tuple(route for route in configured(link, 4) if route_key(route) not in known)

    def create(self, link: Link, route: Route) -> None:
        """Add the route; it replaces a route to the same destination in its table. Raises CniError."""

        def do() -> None:
            with explain_errors(f"cannot add the {_words(route)} to {link}"):
                self._netns.netlink.request(addition(link.index, route, rtnetlink.CREATE | rtnetlink.REPLACE))

        what = f"add the {_words(route)} to {link}"
        self._netns.journal.change(what, do, lambda: _remove(link, route), atomic=True)

    def withdraw(self, link: Link, route: Route) -> None:
        """Remove the route; a failed ADD adds it again. Raises CniError."""

        def undo() -> None:
            self._netns.netlink.request(addition(link.index, route, rtnetlink.CREATE | rtnetlink.REPLACE))

        what = f"remove the {_words(route)} from {link}"
        self._netns.journal.change(what, lambda: _remove(link, route), undo, atomic=True)

    def expect(self, link: Link, route: Route) -> None:
        """Raise CniError unless the route is in its table, over this link and, if it has one, by its gateway.

        A route without a table may also be in the table of the link's VRF, or in a table that a policy rule for an
        address of the link names: the plugins vrf and sbr move routes there.
        """
        if not (_is_there(link, route) or _is_in_table_of_vrf(link, route) or _is_in_table_of_rule(link, route)):
            raise CniError(f"{link} has lost the {_words(route)}")

    def lock_tables(self) -> AbstractContextManager[None]:
        """Return a lock that keeps other calls from choosing a free routing table at the same time.

        To be held from the choice until a rule or VRF uses the table. Raises CniError, code 11, after 30 seconds.
        """
        return rules.lock_tables(self._netns)


def _remove(link: Link, route: Route) -> None:
    with explain_errors(f"cannot remove the {_words(route)} from {link}"):
        (outcome,) = link.netns.netlink.outcomes(removal(link.index, route))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.ESRCH:
            raise outcome


def _words(route: Route) -> str:
    by = f" via {route.gw}" if route.gw else ""
    where = "" if route.table in (None, MAIN) else f" (table {route.table})"
    return f"route to {route.dst}{by}{where}"


def configured(link: Link, version: int) -> list[SourceRoute]:
    """Return the routes of one family (4 or 6) over the link in all tables, without those that the kernel added.

    The kernel adds routes to the subnets of addresses, and routes from router advertisements.
    """
    return [route for route in _over(link, version) if route.protocol not in (_KERNEL, _ROUTER)]


def permanent(link: Link) -> list[SourceRoute]:
    """Return the routes over the link in all tables that were added by hand; routes by a gateway come last.

    Routes of the kernel and of daemons (DHCP clients, BGP) are left out: those will add their routes again.
    """
    found = [route for version in (4, 6) for route in _over(link, version) if route.protocol in (_BOOT, _STATIC)]
    return sorted(found, key=lambda route: route.gw is not None)


def route_key(route: Route) -> tuple[object, ...]:
    """Return what identifies a route over a link: destination, table, priority and gateway."""
    table = MAIN if route.table is None else route.table
    gateway = None if route.gw is None or route.gw.is_unspecified else route.gw
    return route.dst.network, table, route.priority, gateway


def _over(link: Link, version: int, table: int | None = None) -> Iterator[SourceRoute]:
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", table)] if table else []
    attributes.append(("RTA_OIF", link.index))
    for answer in link.netns.netlink.dump(Message(rtnetlink.GETROUTE, 0, {"family": FAMILIES[version]}, attributes)):
        over_link = answer["type"] == _UNICAST and answer.get_attr("RTA_OIF") in (None, link.index)
        if over_link and not _has_unsupported_attributes(answer):
            yield from (_route(answer, gateway, version) for gateway in _gateways(answer, link.index))


def _has_unsupported_attributes(answer: Any) -> bool:
    """Return whether the route depends on attributes that SourceRoute does not have."""
    return bool(answer["tos"]) or answer.has("RTA_VIA") or answer.has("RTA_ENCAP")


def _route(answer: Any, gateway: str | None, version: int) -> SourceRoute:
    everything = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - not for a bind
    source = answer.get_attr("RTA_PREFSRC")
    return SourceRoute(
        ip_interface((answer.get_attr("RTA_DST") or everything, answer["dst_len"])),
        gw=ip_address(gateway) if gateway else None,
        mtu=answer.get_nested("RTA_METRICS", "RTAX_MTU") or 0,
        advmss=answer.get_nested("RTA_METRICS", "RTAX_ADVMSS") or 0,
        priority=answer.get_attr("RTA_PRIORITY") or 0,
        table=answer.get_attr("RTA_TABLE") or answer["table"],
        scope=answer["scope"],
        source=ip_address(source) if source else None,
        protocol=answer["proto"],
        gateway_is_on_link=bool(answer["flags"] & _ONLINK),
    )


def _is_in_table_of_vrf(link: Link, route: Route) -> bool:
    if route.table is not None or not link.state.master:
        return False
    master = find_state_at(link.netns, link.state.master)
    return master is not None and master.table is not None and _is_there(link, replace(route, table=master.table))


def _is_in_table_of_rule(link: Link, route: Route) -> bool:
    if route.table is not None:
        return False
    own = [cidr.ip for cidr in list_with_flags(link) if cidr.version == route.dst.version]
    return any(_is_there(link, replace(route, table=rule.table)) for rule in rules.list_rules(link.netns, own))


def _is_there(link: Link, route: Route) -> bool:
    table = MAIN if route.table is None else route.table
    wanted = str(route.dst.network.network_address) if route.dst.network.prefixlen else None
    gateway = None if route.gw is None or route.gw.is_unspecified else str(route.gw)
    request = Message(
        rtnetlink.GETROUTE,
        0,
        {"family": FAMILIES[route.dst.version]},
        [("RTA_TABLE", table), ("RTA_OIF", link.index)],
    )
    for answer in link.netns.netlink.dump(request):
        if answer["dst_len"] != route.dst.network.prefixlen or answer.get_attr("RTA_DST") != wanted:
            continue
        if gateway is None or gateway in _gateways(answer, link.index):
            return True
    return False


def _gateways(answer: Any, index: int) -> list[str | None]:
    """Return the gateways of a route over the link with this index: IPv6 reports one route with several next hops."""
    hops = answer.get_attr("RTA_MULTIPATH") if answer.has("RTA_MULTIPATH") else None
    return [hop.get_attr("RTA_GATEWAY") for hop in hops or [answer] if not hops or hop["oif"] == index]


def default_routes(netns: NetnsHandle, version: int) -> list[tuple[int, int]]:
    """Return the metric and the link index of each default route of one family (4 or 6).

    Of a route with several next hops, the first one counts.
    """
    request = Message(rtnetlink.GETROUTE, 0, {"family": FAMILIES[version]}, [("RTA_TABLE", MAIN)])
    found = []
    for answer in netns.netlink.dump(request):
        if answer["dst_len"] == 0 and answer["type"] == _UNICAST:
            hops = answer.get_attr("RTA_MULTIPATH") if answer.has("RTA_MULTIPATH") else []
            index = answer.get_attr("RTA_OIF") or (hops[0]["oif"] if hops else 0)
            found.append((answer.get_attr("RTA_PRIORITY") or 0, index))
    return found


def is_local(netns: NetnsHandle, address: Address) -> bool:
    """Return whether the address is one of the namespace's own."""
    answer = _lookup(netns, address)
    return answer is not None and answer["type"] == _LOCAL


def interface_to(netns: NetnsHandle, address: Address) -> str | None:
    """Return the name of the interface by which packets to the address leave; None if there is no route to it."""
    answer = _lookup(netns, address)
    if answer is None or answer["type"] != _UNICAST:
        return None
    with netns.enter():
        return socket.if_indextoname(answer.get_attr("RTA_OIF"))


def _lookup(netns: NetnsHandle, address: Address) -> Any:
    """Return the kernel's route lookup for the address; None if it is unreachable."""
    fields = {"family": FAMILIES[address.version], "dst_len": address.max_prefixlen}
    try:
        (answer,) = netns.netlink.request(
            Message(rtnetlink.GETROUTE, rtnetlink.ACK, fields, [("RTA_DST", str(address))])
        )
    except NetlinkError as error:
        if error.errno in _UNREACHABLE:
            return None
        raise
    return answer
