"""What addresses and routes the two ends of the cable get: the container reaches everything by way of the host."""

from dataclasses import fields
from ipaddress import ip_interface

from pycni.sdk import Address, Cidr, CniError, Code, Lease, Route, SourceRoute

_HOST_SCOPE = 254


def complete(lease: Lease) -> Lease:
    """Every address has a gateway, which is to be the host: where IPAM gave none, the first address of its subnet.

    Raises CniError where that cannot be.
    """
    for ip in lease.ips:
        if ip.gateway is None and ip.address.network.prefixlen == ip.address.max_prefixlen:
            raise _no_gateway(f"IPAM gave no gateway for {ip.address}, and there is no other address in its subnet")
    lease = lease.with_gateways()
    taken = {ip.address.ip for ip in lease.ips}
    for ip in lease.ips:
        if ip.gateway in taken:
            raise _no_gateway(
                f"the gateway of {ip.address} would be {ip.gateway}, which is the container's own address"
            )
    return lease


def gateways(lease: Lease) -> list[Cidr]:
    """The addresses of the host's end: each gateway, alone."""
    return list(dict.fromkeys(_alone(ip.gateway) for ip in lease.ips if ip.gateway))


def routes_to_container(lease: Lease) -> list[Route]:
    """The routes of the host: each address of the container, alone."""
    addresses = dict.fromkeys(_alone(ip.address.ip) for ip in lease.ips)
    return [Route(cidr, scope=_HOST_SCOPE if cidr.version == 4 else None) for cidr in addresses]


def routes_to_host(lease: Lease) -> list[Route]:
    """The routes of the container: first to each gateway, then by it to the subnet, then those that IPAM gave."""
    to_gateway: dict[Cidr, Route] = {}
    to_subnet: dict[Cidr, Route] = {}
    for ip in lease.ips:
        assert ip.gateway  # the lease is complete
        gateway, subnet = _alone(ip.gateway), ip_interface(ip.address.network)
        to_gateway.setdefault(gateway, SourceRoute(gateway, source=ip.address.ip))
        if subnet.network.prefixlen < subnet.max_prefixlen:
            to_subnet.setdefault(subnet, SourceRoute(subnet, gw=ip.gateway, source=ip.address.ip))
    given = [_over_the_cable(route, lease) for route in lease.resolved_routes()]
    return [*to_gateway.values(), *to_subnet.values(), *given]


def _over_the_cable(route: Route, lease: Lease) -> Route:
    """The route, whose gateway may be another address of the subnet: one of the host's, which answers to ARP for it."""
    gateways = {ip.gateway for ip in lease.ips}
    if route.gw is None or route.gw in gateways or not any(route.gw in ip.address.network for ip in lease.ips):
        return route
    said = {field.name: getattr(route, field.name) for field in fields(route)}
    return SourceRoute(**said, gateway_is_on_link=True)


def _alone(address: Address) -> Cidr:
    return ip_interface(address)


def _no_gateway(msg: str) -> CniError:
    return CniError(msg, code=Code.INVALID_NETWORK_CONFIG, details="name another gateway in the section ipam")
