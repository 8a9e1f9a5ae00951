"""Routes of a link: added with all their attributes, and found again in the table where they belong."""

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from typing import Any

from pycni.kernel.link import addresses, links, rules
from pycni.kernel.link.addresses import FAMILIES
from pycni.kernel.link.links import Link, explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError, Code
from pycni.protocol.result import Route

MAIN = 254
_KERNEL, _BOOT, _STATIC, _ROUTER = 2, 3, 4, 9  # RTPROT_KERNEL, RTPROT_BOOT, RTPROT_STATIC, RTPROT_RA
_ONLINK = 4  # RTNH_F_ONLINK
_UNICAST, _LOCAL = 1, 2  # RTN_UNICAST, RTN_LOCAL
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_MOST = {"mtu": 0xFFFFFFFF, "advmss": 0xFFFFFFFF, "priority": 0xFFFFFFFF, "table": 0xFFFFFFFF, "scope": 0xFF}


@dataclass(frozen=True, slots=True)
class SourceRoute(Route):
    """A route with the address that packets get which have none of their own yet, and with who made it (RTPROT_…)."""

    source: Address | None = None
    protocol: int = _BOOT
    gateway_is_on_link: bool = False  # although no other route says so


def addition(index: int, route: Route, flags: int = rtnetlink.CREATE) -> Message:
    """The request that adds the route to the link with this index."""
    return _message(rtnetlink.NEWROUTE, flags, index, route)


def removal(index: int, route: Route) -> Message:
    """The request that removes the route from the link with this index."""
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
    """Raise CniError if one of its numbers is none that the kernel has room for."""
    for name, most in _MOST.items():
        value = getattr(route, name)
        if value and not 0 <= value <= most:
            raise CniError(
                f"the route to {route.dst} cannot have {name} {value}: it is a number from 0 to {most}",
                code=Code.INVALID_NETWORK_CONFIG,
                details="the routes are those of IPAM; see its section of the configuration",
            )


def _scope(route: Route, *, on_link: bool) -> int:
    if route.scope is not None:
        return route.scope
    return _SCOPE_LINK if on_link and route.dst.version == 4 else _SCOPE_UNIVERSE


def create(link: Link, route: Route) -> None:
    """Add the route, in the place of one to the same destination in its table."""
    netns = link.netns

    def do() -> None:
        with explained(f"cannot add the {_words(route)} to {link}"):
            netns.netlink.request(addition(link.index, route, rtnetlink.CREATE | rtnetlink.REPLACE))

    netns.journal.change(f"add the {_words(route)} to {link}", do, lambda: _remove(link, route))


def withdraw(link: Link, route: Route) -> None:
    """Take the route away; it comes back if the call fails."""

    def undo() -> None:
        link.netns.netlink.request(addition(link.index, route, rtnetlink.CREATE | rtnetlink.REPLACE))

    link.netns.journal.change(f"take the {_words(route)} from {link}", lambda: _remove(link, route), undo)


def _remove(link: Link, route: Route) -> None:
    with explained(f"cannot take the {_words(route)} from {link}"):
        (outcome,) = link.netns.netlink.outcomes(removal(link.index, route))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.ESRCH:
            raise outcome


def _words(route: Route) -> str:
    by = f" via {route.gw}" if route.gw else ""
    where = "" if route.table in (None, MAIN) else f" (table {route.table})"
    return f"route to {route.dst}{by}{where}"


def of(link: Link, version: int) -> list[SourceRoute]:
    """The routes of a family over the link in table main, but for those of IPv6 that never leave the link."""
    found = _over(link, version, MAIN)
    return [route for route in found if version == 4 or not (route.dst.is_link_local or route.dst.is_multicast)]


def made_on(link: Link, version: int) -> list[SourceRoute]:
    """The routes of a family over the link that somebody has made, in all tables.

    Not those that the kernel makes itself, from addresses or as routers advertise.
    """
    return [route for route in _over(link, version) if route.protocol not in (_KERNEL, _ROUTER)]


def lasting_on(link: Link) -> list[SourceRoute]:
    """The routes over the link that somebody has made for good, in all tables, those by a gateway last.

    Not those that the kernel makes, or a daemon, such as a DHCP client or one of BGP, which will make them again.
    """
    found = [route for version in (4, 6) for route in _over(link, version) if route.protocol in (_BOOT, _STATIC)]
    return sorted(found, key=lambda route: route.gw is not None)


def _over(link: Link, version: int, table: int | None = None) -> Iterator[SourceRoute]:
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", table)] if table else []
    attributes.append(("RTA_OIF", link.index))
    for answer in link.netns.netlink.dump(Message(rtnetlink.GETROUTE, 0, {"family": FAMILIES[version]}, attributes)):
        over_link = answer["type"] == _UNICAST and answer.get_attr("RTA_OIF") in (None, link.index)
        if over_link and not _is_unspeakable(answer):
            yield from (_route(answer, gateway, version) for gateway in _gateways(answer, link.index))


def _is_unspeakable(answer: Any) -> bool:
    """Whether there is more to the route than a Route can say: without that it would lead elsewhere."""
    return bool(answer["tos"]) or answer.has("RTA_VIA") or answer.has("RTA_ENCAP")


def _route(answer: Any, gateway: str | None, version: int) -> SourceRoute:
    everything = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - nobody binds to it
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


def expect(link: Link, route: Route) -> None:
    """Raise CniError unless the route is in its table, over this link and, if it has one, by its gateway.

    A route without a table may also be in that of the link's VRF, or in one that a rule about an address of the link
    leads to: the plugins vrf and sbr move them there.
    """
    if not (_is_there(link, route) or _is_in_table_of_vrf(link, route) or _is_in_table_of_rule(link, route)):
        raise CniError(f"{link} has lost the {_words(route)}")


def _is_in_table_of_vrf(link: Link, route: Route) -> bool:
    if route.table is not None or not link.state.master:
        return False
    master = links.find_state_at(link.netns, link.state.master)
    return master is not None and master.table is not None and _is_there(link, replace(route, table=master.table))


def _is_in_table_of_rule(link: Link, route: Route) -> bool:
    if route.table is not None:
        return False
    own = [cidr.ip for cidr in addresses.on(link) if cidr.version == route.dst.version]
    return any(_is_there(link, replace(route, table=rule.table)) for rule in rules.of(link.netns, own))


def _is_there(link: Link, route: Route) -> bool:
    table = MAIN if route.table is None else route.table
    wanted = str(route.dst.network.network_address) if route.dst.network.prefixlen else None
    gateway = None if route.gw is None or route.gw.is_unspecified else str(route.gw)
    question = Message(
        rtnetlink.GETROUTE,
        0,
        {"family": FAMILIES[route.dst.version]},
        [("RTA_TABLE", table), ("RTA_OIF", link.index)],
    )
    for answer in link.netns.netlink.dump(question):
        if answer["dst_len"] != route.dst.network.prefixlen or answer.get_attr("RTA_DST") != wanted:
            continue
        if gateway is None or gateway in _gateways(answer, link.index):
            return True
    return False


def _gateways(answer: Any, index: int) -> list[str | None]:
    """The gateways of a route over the link with this index; IPv6 merges routes of one destination into one."""
    hops = answer.get_attr("RTA_MULTIPATH") if answer.has("RTA_MULTIPATH") else None
    return [hop.get_attr("RTA_GATEWAY") for hop in hops or [answer] if not hops or hop["oif"] == index]


def defaults(netns: NetnsHandle, version: int) -> list[tuple[int, int]]:
    """The metric and the index of the link of each default route; of one with several hops, the first."""
    question = Message(rtnetlink.GETROUTE, 0, {"family": FAMILIES[version]}, [("RTA_TABLE", MAIN)])
    found = []
    for answer in netns.netlink.dump(question):
        if answer["dst_len"] == 0 and answer["type"] == _UNICAST:
            hops = answer.get_attr("RTA_MULTIPATH") if answer.has("RTA_MULTIPATH") else []
            index = answer.get_attr("RTA_OIF") or (hops[0]["oif"] if hops else 0)
            found.append((answer.get_attr("RTA_PRIORITY") or 0, index))
    return found


def is_local(netns: NetnsHandle, address: Address) -> bool:
    """Whether the address is one of the namespace's own."""
    answer = _way(netns, address)
    return answer is not None and answer["type"] == _LOCAL


def interface_to(netns: NetnsHandle, address: Address) -> str | None:
    """The name of the interface by which packets to the address leave; None if there is no way to it."""
    answer = _way(netns, address)
    if answer is None or answer["type"] != _UNICAST:
        return None
    with netns.entered():
        return socket.if_indextoname(answer.get_attr("RTA_OIF"))


def _way(netns: NetnsHandle, address: Address) -> Any:
    """The kernel's answer to where packets to the address go; None if nowhere."""
    fields = {"family": FAMILIES[address.version], "dst_len": address.max_prefixlen}
    try:
        (answer,) = netns.netlink.request(
            Message(rtnetlink.GETROUTE, rtnetlink.ACK, fields, [("RTA_DST", str(address))])
        )
    except NetlinkError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    return answer
