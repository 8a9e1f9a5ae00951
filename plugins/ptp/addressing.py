"""Addresses and routes of both ends of the veth pair, so that all traffic of the container passes the host."""

from dataclasses import fields
from ipaddress import ip_interface

from pycni.sdk import Address, Cidr, CniError, Code, Lease, Route, SourceRoute

_HOST_SCOPE = 254


def complete(lease: Lease) -> Lease:
    """Return the IPAM result with a gateway for every address, by default the first address of its subnet.

    Raise CniError if that is impossible: the host end takes the gateway addresses.
    """
    for ip in lease.ips:
        if ip.gateway is None and ip.address.network.prefixlen == ip.address.max_prefixlen:
            raise _no_gateway(f"IPAM returned no gateway for {ip.address}, and its subnet has no other address")
    lease = lease.with_gateways()
    own = {ip.address.ip for ip in lease.ips}
    for ip in lease.ips:
        if ip.gateway in own:
            raise _no_gateway(
                f"the gateway of {ip.address} would be {ip.gateway}, which is an address of the container itself"
            )
    return lease


def gateways(lease: Lease) -> list[Cidr]:
    """Return the addresses of the host end: each gateway, as /32 or /128."""
    return list(dict.fromkeys(_single_address(ip.gateway) for ip in lease.ips if ip.gateway))


def routes_to_container(lease: Lease) -> list[Route]:
    """Return the routes of the host: one to each address of the container."""
    addresses = dict.fromkeys(_single_address(ip.address.ip) for ip in lease.ips)
    return [Route(cidr, scope=_HOST_SCOPE if cidr.version == 4 else None) for cidr in addresses]


def routes_to_host(lease: Lease) -> list[Route]:
    """Return the routes of the container: to each gateway, then through it to its subnet, then the routes from IPAM."""
    to_gateway: dict[Cidr, Route] = {}
    to_subnet: dict[Cidr, Route] = {}
    for ip in lease.ips:
        assert ip.gateway  # set by complete()
        gateway, subnet = _single_address(ip.gateway), ip_interface(ip.address.network)
        to_gateway.setdefault(gateway, SourceRoute(gateway, source=ip.address.ip))
        if subnet.network.prefixlen < subnet.max_prefixlen:
            to_subnet.setdefault(subnet, SourceRoute(subnet, gw=ip.gateway, source=ip.address.ip))
    from_ipam = [_with_gateway_on_link(route, lease) for route in lease.resolved_routes()]
    return [*to_gateway.values(), *to_subnet.values(), *from_ipam]


def _with_gateway_on_link(route: Route, lease: Lease) -> Route:
    """Return the route, marked `onlink` if its gateway is an address of the subnet other than the gateways from IPAM.

    Such an address is taken for another address of the host, which answers ARP requests for it.
    """
    gateways = {ip.gateway for ip in lease.ips}
    if route.gw is None or route.gw in gateways or not any(route.gw in ip.address.network for ip in lease.ips):
        return route
    values = {field.name: getattr(route, field.name) for field in fields(route)}
    return SourceRoute(**values, gateway_is_on_link=True)


def _single_address(address: Address) -> Cidr:
    return ip_interface(address)


def _no_gateway(msg: str) -> CniError:
    return CniError(msg, code=Code.INVALID_NETWORK_CONFIG, details="set another gateway in ipam")
