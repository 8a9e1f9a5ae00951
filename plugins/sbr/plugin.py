"""sbr: packets leave by the interface whose address they come from (source based routing).

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

_EVERYTHING = {4: ip_interface("0.0.0.0/0"), 6: ip_interface("::/0")}
_USUAL = (0, 1024)  # the priorities of routes that are given none, by family


class SbrConfig(NetConf):
    """The options of sbr; README.md explains them."""

    table: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    gateways: tuple[Address, ...] = ()
    add_source_hints: bool = False

    @field_validator("gateways", mode="after")
    @classmethod
    def _one_of_each_family(cls, gateways: tuple[Address, ...]) -> tuple[Address, ...]:
        if len(gateways) > 2:
            raise ValueError("gateways list cannot contain more than 2 entries (one IPv4, one IPv6)")
        for version in (4, 6):
            same = [str(gateway) for gateway in gateways if gateway.version == version]
            if len(same) > 1:
                raise ValueError(f"gateways list cannot contain multiple IPv{version} addresses: {', '.join(same)}")
        return gateways

    def gateway(self, ip: IpConfig) -> Address | None:
        """The gateway for what comes from the address: that of the configuration, else IPAM's."""
        own = (gateway for gateway in self.gateways if gateway.version == ip.address.version)
        return next(own, ip.gateway)


class Sbr(Plugin[SbrConfig]):
    """The plugin; it belongs after the one that made the interface."""

    config = SbrConfig

    def add(self, cni: Attachment[SbrConfig]) -> Result:
        """A table for each address of the interface, and the interface's routes in there instead of in table main."""
        conf, container, result = cni.config, cni.container, cni.required_prev_result
        eth, ips = container.link(cni.ifname), _addresses(cni)
        with container.locked("choosing a routing table"):
            if conf.table is not None:
                for ip in ips:
                    container.create_source_rule(ip.address.ip, conf.table)
            else:
                for version in (4, 6):
                    self._divert(cni, eth, [ip for ip in ips if ip.address.version == version], version)
        return result

    def _divert(self, cni: Attachment[SbrConfig], eth: "Link", ips: Sequence[IpConfig], version: int) -> None:
        """One family: its routes are copied to the tables of the addresses, and then taken from table main."""
        if not ips:
            return
        container, hints = cni.container, cni.config.add_source_hints
        routes, subnets = container.routes_of(eth, version), [ip.address.network for ip in ips]
        for ip in ips:
            table = container.create_source_rule(ip.address.ip)
            for route in _of_address(routes, ip, subnets, cni.config.gateway(ip)):
                container.create_route(eth, replace(route, table=table))
        for route in reversed(_ways_first(routes)):
            source = next((ip.address.ip for ip in ips if route.dst.ip in ip.address.network), None)
            hinted = replace(route, source=source) if hints and route.gw is None and source else None
            if route != hinted:
                container.withdraw_route(eth, route)
            if hinted and route != hinted:
                container.create_route(eth, hinted)

    def check(self, cni: Attachment[SbrConfig]) -> None:
        """See that each address has its rule, and the rule's table its way out."""
        container, conf = cni.container, cni.config
        eth = container.link(cni.ifname)
        for ip in _addresses(cni):
            table = container.expect_source_rule(ip.address.ip, conf.table)
            gateway = conf.gateway(ip)
            if conf.table is None and gateway is not None:
                container.expect_route(eth, SourceRoute(_EVERYTHING[ip.address.version], gw=gateway, table=table))

    def delete(self, cni: Attachment[SbrConfig]) -> None:
        """Remove the rules; the routes go with the interface."""
        container = cni.container
        eth = cni.find_own_link()
        if eth is None and container.find_link(cni.ifname) is not None:
            return  # the path leads to another container by now, which may have got the addresses too
        present = container.addresses(eth) if eth else []
        sources = {*(cidr.ip for cidr in present), *(ip.address.ip for ip in cni.prev_ips)}
        container.delete_source_rules(sources, cni.config.table)


def _addresses(cni: Attachment[SbrConfig]) -> list[IpConfig]:
    cni.required_prev_result  # noqa: B018 - says so if there is none
    if not cni.prev_ips:
        raise CniError(
            f"No IP addresses supplied on interface: {cni.ifname}",
            details="sbr routes by the addresses that an earlier plugin of the list gave to the interface",
        )
    return cni.prev_ips


def _of_address(
    routes: Sequence[SourceRoute], ip: IpConfig, subnets: Sequence[Subnet], gateway: Address | None
) -> Iterator[SourceRoute]:
    """The routes for packets from an address: to its subnet, all that are its own, and the one to everywhere."""
    subnet, everywhere = ip.address.network, _EVERYTHING[ip.address.version]
    own = [route for route in routes if _is_by(route, [subnet]) or not _is_by(route, subnets)]
    if all(route.dst.network != subnet for route in own) and subnet.prefixlen < subnet.max_prefixlen:
        own.append(SourceRoute(ip_interface(subnet), source=ip.address.ip))
    if gateway is not None:
        replaced = [route for route in own if route.dst == everywhere and route.priority in _USUAL]
        own = [*(route for route in own if route not in replaced), SourceRoute(everywhere, gw=gateway)]
    yield from _ways_first(own)


def _is_by(route: SourceRoute, subnets: Sequence[Subnet]) -> bool:
    """Whether the route belongs to one of these subnets of the interface, by its gateway or its source.

    A gateway that is in none of them, as that of a /32 is, serves all.
    """
    return any(address in subnet for address in (route.source, route.gw) if address for subnet in subnets)


def _ways_first(routes: Sequence[SourceRoute]) -> list[SourceRoute]:
    """The routes to what is behind the link itself come first: gateways are found by them."""
    return sorted(routes, key=lambda route: route.gw is not None)
