"""Tests of leases: gateways and default routes, which are computed without the kernel."""

from pycni.protocol.address import parse_cidr, parse_ip
from pycni.protocol.result import IpConfig, Route
from pycni.sdk import Lease

V4, V6 = IpConfig(parse_cidr("10.1.0.5/24")), IpConfig(parse_cidr("fd00::5/64"))
DEFAULT4, DEFAULT6 = parse_cidr("0.0.0.0/0"), parse_cidr("::/0")


def test_missing_gateway_is_the_first_address_of_the_subnet() -> None:
    given = IpConfig(parse_cidr("10.2.0.5/24"), parse_ip("10.2.0.254"))
    lease = Lease((V4, given, V6)).with_gateways()
    assert [str(ip.gateway) for ip in lease.ips] == ["10.1.0.1", "10.2.0.254", "fd00::1"]
    assert [str(gateway) for gateway in lease.gateways] == ["10.1.0.1/24", "10.2.0.254/24", "fd00::1/64"]


def test_gateway_of_several_addresses_is_listed_once() -> None:
    other = IpConfig(parse_cidr("10.1.0.6/24"))
    assert len(Lease((V4, other)).with_gateways().gateways) == 1


def test_every_family_gets_a_default_route() -> None:
    lease = Lease((V4, V6)).with_gateways().with_default_routes()
    assert lease.routes == (Route(DEFAULT4, parse_ip("10.1.0.1")), Route(DEFAULT6, parse_ip("fd00::1")))


def test_default_route_from_ipam_is_not_repeated() -> None:
    """Applies to default routes with and without a gateway."""
    lease = Lease((V4, V6), (Route(DEFAULT4),)).with_gateways().with_default_routes()
    assert lease.routes == (Route(DEFAULT4), Route(DEFAULT6, parse_ip("fd00::1")))
    assert lease.resolved_routes()[0].gw == parse_ip("10.1.0.1")


def test_routes_without_gateway_use_the_gateway_of_their_family() -> None:
    routes = (Route(parse_cidr("10.9.0.0/16")), Route(parse_cidr("10.8.0.0/16"), parse_ip("10.1.0.7")))
    resolved = Lease((V4,), routes).with_gateways().resolved_routes()
    assert [str(route.gw) for route in resolved] == ["10.1.0.1", "10.1.0.7"]


def test_route_of_link_scope_has_no_gateway() -> None:
    assert Lease((V4,), (Route(parse_cidr("10.9.0.0/16"), scope=253),)).with_gateways().resolved_routes()[0].gw is None


def test_equal_resolved_routes_are_added_once() -> None:
    routes = (Route(DEFAULT4), Route(DEFAULT4, parse_ip("10.1.0.1")))
    assert len(Lease((V4,), routes).with_gateways().resolved_routes()) == 1


def test_lease_without_addresses_is_unchanged() -> None:
    assert Lease().with_gateways().with_default_routes() == Lease()
