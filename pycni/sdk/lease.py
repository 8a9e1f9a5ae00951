"""The addresses and routes assigned by IPAM, and what a plugin adds to them."""

from dataclasses import dataclass, field, replace
from typing import Self

from pycni.protocol.address import Address, Cidr, parse_cidr, to_cidr
from pycni.protocol.result import Dns, IpConfig, Result, Route

_LINK_SCOPE = 253
_EVERYTHING = {4: parse_cidr("0.0.0.0/0"), 6: parse_cidr("::/0")}


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses with their gateways, routes, resolver settings and time servers of one attachment.

    A lease is immutable: methods return a new one.

        lease = cni.ipam.add().with_gateways()
        cni.container.addresses.configure(eth, lease.cidrs, lease.resolved_routes())
    """

    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)
    ntp: tuple[Address, ...] = ()

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Return the lease in the result of an IPAM plugin."""
        return cls(result.ips, result.routes, result.dns, result.ntp)

    @property
    def cidrs(self) -> list[Cidr]:
        """The addresses with their prefix lengths."""
        return [ip.address for ip in self.ips]

    @property
    def gateways(self) -> list[Cidr]:
        """The gateways without duplicates, each with the prefix length of the addresses that use it."""
        cidrs = (to_cidr(ip.gateway, ip.address.network.prefixlen) for ip in self.ips if ip.gateway)
        return list(dict.fromkeys(cidrs))

    def gateway(self, version: int) -> Address | None:
        """Return the first gateway of the IP version, 4 or 6; None if there is none."""
        return next((ip.gateway for ip in self.ips if ip.gateway and ip.gateway.version == version), None)

    def with_gateways(self) -> Self:
        """Return a lease in which an address without a gateway has the first address of its subnet as gateway."""
        return replace(self, ips=tuple(replace(ip, gateway=ip.gateway or _first_host(ip.address)) for ip in self.ips))

    def with_default_routes(self) -> Self:
        """Return a lease with a default route for each IP version that has addresses and a gateway, but none yet."""
        present = {route.dst.version for route in self.routes if route.dst.network.prefixlen == 0}
        versions = dict.fromkeys(ip.address.version for ip in self.ips)
        defaults = [
            Route(_EVERYTHING[version], gw=self.gateway(version))
            for version in versions
            if version not in present and self.gateway(version)
        ]
        return replace(self, routes=(*self.routes, *defaults))

    def resolved_routes(self) -> list[Route]:
        """Return the routes without duplicates, each with its next hop: its own, else the gateway of its IP version.

        A route of scope link without a next hop stays without one.
        """
        resolved = (
            route if route.gw or route.scope == _LINK_SCOPE else replace(route, gw=self.gateway(route.dst.version))
            for route in self.routes
        )
        return list(dict.fromkeys(resolved))


def _first_host(cidr: Cidr) -> Address:
    return cidr.network.network_address + 1
