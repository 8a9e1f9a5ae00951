"""sbr: source based routing. Packets leave through the interface that owns their source address.

container
rule: from 10.1.0.2 lookup 100     table 100: default via 10.1.0.1 dev net1 · 10.1.0.0/24 dev net1
rule: from 10.2.0.2 lookup 101     table 101: default via 10.2.0.1 dev net2 · 10.2.0.0/24 dev net2
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import TYPE_CHECKING, Annotated

from pycni.sdk import (
    Address,
    Attachment,
    CniError,
    Field,
    IpConfig,
    NetConf,
    Plugin,
    Result,
    SourceRoute,
    field_validator,
)

if TYPE_CHECKING:
    from pycni.sdk import Link

Subnet = IPv4Network | IPv6Network

_DEFAULT_DST = {4: ip_interface("0.0.0.0/0"), 6: ip_interface("::/0")}
_DEFAULT_PRIORITIES = (0, 1024)  # priority of a route for which none is given: IPv4, IPv6


class SbrConfig(NetConf):
    """Configuration of sbr. README.md describes the options."""

    table: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    gateways: tuple[Address, ...] = ()
    add_source_hints: bool = False

    @field_validator("gateways", mode="after")
    @classmethod
    def _at_most_one_per_family(cls, gateways: tuple[Address, ...]) -> tuple[Address, ...]:
        if len(gateways) > 2:
            raise ValueError("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)")
        for version in (4, 6):
            same = [str(gateway) for gateway in gateways if gateway.version == version]
            if len(same) > 1:
                raise ValueError(f"gateways list cannot contain multiple IPv{version} addresses: {', '.join(same)}")
        return gateways

    def gateway(self, ip: IpConfig) -> Address | None:
        """Return the gateway for packets from the address: the one in `gateways`, else the one from IPAM."""
        configured = (gateway for gateway in self.gateways if gateway.version == ip.address.version)
        return next(configured, ip.gateway)


class Sbr(Plugin[SbrConfig]):
    """The sbr plugin. It follows the plugin that creates the interface."""

    config = SbrConfig

    def add(self, cni: Attachment[SbrConfig]) -> Result:
        """Give each address a routing table and a rule, and move the routes of the interface from table main there."""
        conf, container, result = cni.config, cni.container, cni.required_prev_result
        eth, ips = container.link(cni.ifname), _addresses(cni)
        with container.routes.lock_tables():
            if conf.table is not None:
                for ip in ips:
                    container.rules.create(ip.address.ip, conf.table)
            else:
                for version in (4, 6):
                    self._move_routes(cni, eth, [ip for ip in ips if ip.address.version == version], version)
        return result

    def _move_routes(self, cni: Attachment[SbrConfig], eth: "Link", ips: Sequence[IpConfig], version: int) -> None:
        """Copy the routes of one family to the tables of the addresses, then remove them from table main."""
        if not ips:
            return
        container, hints = cni.container, cni.config.add_source_hints
        routes, subnets = container.routes.of(eth, version), [ip.address.network for ip in ips]
        for ip in ips:
            table = container.rules.create(ip.address.ip)
            for route in _routes_of_address(routes, ip, subnets, cni.config.gateway(ip)):
                container.routes.create(eth, replace(route, table=table))
        for route in reversed(_on_link_first(routes)):
            source = next((ip.address.ip for ip in ips if route.dst.ip in ip.address.network), None)
            hinted = replace(route, source=source) if hints and route.gw is None and source else None
            if route != hinted:
                container.routes.withdraw(eth, route)
            if hinted and route != hinted:
                container.routes.create(eth, hinted)

    def check(self, cni: Attachment[SbrConfig]) -> None:
        """Raise CniError unless each address has its rule, and the table of the rule a default route."""
        container, conf = cni.container, cni.config
        eth = container.link(cni.ifname)
        for ip in _addresses(cni):
            table = container.rules.expect(ip.address.ip, conf.table)
            gateway = conf.gateway(ip)
            if conf.table is None and gateway is not None:
                container.routes.expect(eth, SourceRoute(_DEFAULT_DST[ip.address.version], gw=gateway, table=table))

    def delete(self, cni: Attachment[SbrConfig]) -> None:
        """Delete the rules. The kernel deletes the routes with the interface."""
        container = cni.container
        eth = cni.find_owned_link()
        if eth is None and container.find_link(cni.ifname) is not None:
            return  # the path belongs to another container now, which may have the same addresses
        present = container.addresses.of(eth) if eth else []
        sources = {*(cidr.ip for cidr in present), *(ip.address.ip for ip in cni.prev_ips)}
        container.rules.delete(sources, cni.config.table)


def _addresses(cni: Attachment[SbrConfig]) -> list[IpConfig]:
    cni.required_prev_result  # noqa: B018 - raises ConfigError if there is none
    if not cni.prev_ips:
        raise CniError(
            f"No IP addresses supplied on interface: {cni.ifname}",
            details="sbr needs the addresses that an earlier plugin of the list gave to the interface",
        )
    return cni.prev_ips


def _routes_of_address(
    routes: Sequence[SourceRoute], ip: IpConfig, subnets: Sequence[Subnet], gateway: Address | None
) -> Iterator[SourceRoute]:
    """Return the routes for packets from an address: to its subnet, those that belong to it, and the default route."""
    subnet, default = ip.address.network, _DEFAULT_DST[ip.address.version]
    own = [route for route in routes if _belongs_to(route, [subnet]) or not _belongs_to(route, subnets)]
    if all(route.dst.network != subnet for route in own) and subnet.prefixlen < subnet.max_prefixlen:
        own.append(SourceRoute(ip_interface(subnet), source=ip.address.ip))
    if gateway is not None:
        replaced = [route for route in own if route.dst == default and route.priority in _DEFAULT_PRIORITIES]
        own = [*(route for route in own if route not in replaced), SourceRoute(default, gw=gateway)]
    yield from _on_link_first(own)


def _belongs_to(route: SourceRoute, subnets: Sequence[Subnet]) -> bool:
    """Return whether the gateway or the source of the route is in one of the subnets of the interface.

    A gateway outside all subnets, as with a /32 address, belongs to all addresses.
    """
    return any(address in subnet for address in (route.source, route.gw) if address for subnet in subnets)


def _on_link_first(routes: Sequence[SourceRoute]) -> list[SourceRoute]:
    """Return the routes without a gateway first: the kernel accepts a gateway only if a route to it exists."""
    return sorted(routes, key=lambda route: route.gw is not None)
