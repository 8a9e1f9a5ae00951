"""Routes of a link: added with all their attributes, and found again in the table where they belong."""

import errno
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from pycni.kernel import netlink
from pycni.kernel.addresses import FAMILIES
from pycni.kernel.door import Door
from pycni.kernel.links import Link
from pycni.kernel.netlink import Message, NetlinkError, link_message
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError
from pycni.protocol.result import Route

MAIN = 254
_KERNEL, _BOOT = 2, 3  # RTPROT_KERNEL, RTPROT_BOOT
_UNICAST, _LOCAL = 1, 2  # RTN_UNICAST, RTN_LOCAL
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253


@dataclass(frozen=True, slots=True)
class SourceRoute(Route):
    """A route with the address that packets get which have none of their own yet."""

    source: Address | None = None


def addition(index: int, route: Route) -> Message:
    """The request that adds the route to the link with this index."""
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
        "proto": _BOOT,
        "scope": _scope(route, on_link=gateway is None),
        "type": _UNICAST,
    }
    return Message(netlink.NEWROUTE, netlink.CREATE | netlink.ACK, fields, attributes)


def removal(index: int, route: Route) -> Message:
    """The request that removes the route from the link with this index."""
    added = addition(index, route)
    return Message(netlink.DELROUTE, netlink.ACK, added.fields, added.attributes)


def _scope(route: Route, *, on_link: bool) -> int:
    if route.scope is not None:
        return route.scope
    return _SCOPE_LINK if on_link and route.dst.version == 4 else _SCOPE_UNIVERSE


def made_on(link: Link) -> list[SourceRoute]:
    """The IPv4 routes over the link that somebody has made, in all tables; not those that the kernel makes itself."""
    question = Message(netlink.GETROUTE, 0, {"family": FAMILIES[4]}, [("RTA_OIF", link.index)])
    return [
        _read(answer)
        for answer in link.door.netlink.dump(question)
        if answer["proto"] != _KERNEL and answer["type"] == _UNICAST and answer.get_attr("RTA_OIF") == link.index
    ]


def _read(answer: Any) -> SourceRoute:
    attribute = answer.in_full().get_attr
    gateway, source, metrics = attribute("RTA_GATEWAY"), attribute("RTA_PREFSRC"), attribute("RTA_METRICS")
    return SourceRoute(
        ip_interface((attribute("RTA_DST") or 0, answer["dst_len"])),
        gateway and ip_address(gateway),
        mtu=(metrics and metrics.get_attr("RTAX_MTU")) or 0,
        advmss=(metrics and metrics.get_attr("RTAX_ADVMSS")) or 0,
        priority=attribute("RTA_PRIORITY") or 0,
        table=attribute("RTA_TABLE") or answer["table"],
        scope=answer["scope"],
        source=source and ip_address(source),
    )


def expect(link: Link, route: Route) -> None:
    """Raise CniError unless the route is in its table, over this link and, if it has one, by its gateway."""
    table = MAIN if route.table is None else route.table
    wanted = str(route.dst.network.network_address) if route.dst.network.prefixlen else None
    gateway = None if route.gw is None or route.gw.is_unspecified else str(route.gw)
    question = Message(
        netlink.GETROUTE,
        0,
        {"family": FAMILIES[route.dst.version]},
        [("RTA_TABLE", table), ("RTA_OIF", link.index)],
    )
    for answer in link.door.netlink.dump(question):
        if answer["dst_len"] != route.dst.network.prefixlen or answer.get_attr("RTA_DST") != wanted:
            continue
        if gateway is None or gateway in _gateways(answer):
            return
    by = f" via {gateway}" if gateway else ""
    where = "" if table == MAIN else f" (table {table})"
    raise CniError(f"{link} has lost the route to {route.dst}{by}{where}")


def _gateways(answer: Any) -> list[str]:
    """The gateways of a route; IPv6 merges routes of one destination into one with several."""
    hops = answer.get_attr("RTA_MULTIPATH") or []
    return [hop.get_attr("RTA_GATEWAY") for hop in (answer, *hops)]


def is_local(door: Door, address: Address) -> bool:
    """Whether the address is one of the namespace's own."""
    answer = _way(door, address)
    return answer is not None and answer["type"] == _LOCAL


def interface_to(door: Door, address: Address) -> str | None:
    """The name of the interface by which packets to the address leave; None if there is no way to it."""
    answer = _way(door, address)
    if answer is None or answer["type"] != _UNICAST:
        return None
    (link,) = door.netlink.request(link_message(netlink.GETLINK, [], index=answer.get_attr("RTA_OIF")))
    return str(link.get_attr("IFLA_IFNAME"))


def _way(door: Door, address: Address) -> Any:
    """The kernel's answer to where packets to the address go; None if nowhere."""
    fields = {"family": FAMILIES[address.version], "dst_len": address.max_prefixlen}
    try:
        (answer,) = door.netlink.request(Message(netlink.GETROUTE, netlink.ACK, fields, [("RTA_DST", str(address))]))
    except NetlinkError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    return answer
