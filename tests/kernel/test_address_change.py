"""Replacing an address of an interface in use, and what happens to its routes."""

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_interface

import pytest

from pycni.kernel.link.address_change import RouteChange
from pycni.kernel.namespace import Namespace
from pycni.protocol.result import Route
from pycni.testing import Container

OLD, NEW, OTHER_SUBNET = (ip_interface(text) for text in ("10.1.0.2/24", "10.1.0.3/24", "10.2.0.3/24"))


def default_route(gateway: str) -> Route:
    return Route(ip_interface("0.0.0.0/0"), IPv4Address(gateway))


@pytest.fixture
def namespace(container: Container) -> Iterator[Namespace]:
    """A namespace with eth0, which has the old address and a default route."""
    container.run("ip link add eth0 type veth peer name peer0 && ip link set eth0 up && ip link set peer0 up")
    container.run(f"ip addr add {OLD} dev eth0 && ip route add default via 10.1.0.1")
    opened = Namespace.at(container.path)
    yield opened
    opened.close()


def routes(container: Container) -> set[str]:
    lines = container.run("ip -4 route show table all dev eth0").splitlines()
    return {" ".join(line.split()) for line in lines if "proto kernel" not in line}


def test_other_routes_are_restored_with_all_attributes(container: Container, namespace: Namespace) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9 metric 5 mtu 1300 advmss 1200")
    container.run("ip route add 10.9.0.0/16 via 10.1.0.9 table 77 src 10.1.0.2")
    change = RouteChange((default_route("10.1.0.1"),), (default_route("10.1.0.254"),))
    namespace.addresses.replace(namespace.link("eth0"), [OLD], [NEW], change)
    assert NEW in namespace.addresses.of(namespace.link("eth0"))
    assert OLD not in namespace.addresses.of(namespace.link("eth0"))
    assert routes(container) == {
        "default via 10.1.0.254",
        "10.8.0.0/16 via 10.1.0.9 metric 5 mtu 1300 advmss 1200",
        "10.9.0.0/16 via 10.1.0.9 table 77",
    }


def test_lost_route_without_a_reachable_gateway_is_logged(
    container: Container, namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9")
    namespace.addresses.replace(
        namespace.link("eth0"), [OLD], [OTHER_SUBNET], RouteChange((default_route("10.1.0.1"),))
    )
    assert routes(container) == set()
    assert "the route to 10.8.0.0/16 via 10.1.0.9 is lost" in caplog.text


def test_routes_of_another_address_of_the_link_are_kept(
    container: Container, namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    container.run("ip addr add 10.7.0.2/24 dev eth0 && ip route add 10.8.0.0/16 via 10.7.0.1 src 10.7.0.2")
    change = RouteChange((default_route("10.1.0.1"),), (default_route("10.2.0.1"),))
    namespace.addresses.replace(namespace.link("eth0"), [OLD], [OTHER_SUBNET], change)
    assert routes(container) == {"default via 10.2.0.1", "10.8.0.0/16 via 10.7.0.1 src 10.7.0.2"}
    assert caplog.text == ""


def test_unchanged_address_is_kept_and_routes_change(container: Container, namespace: Namespace) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9")
    change = RouteChange((default_route("10.1.0.1"),), (default_route("10.1.0.254"),))
    (before,) = container.json("ip -j -4 addr show dev eth0")
    namespace.addresses.replace(namespace.link("eth0"), [OLD], [OLD], change)
    assert routes(container) == {"default via 10.1.0.254", "10.8.0.0/16 via 10.1.0.9"}
    (after,) = container.json("ip -j -4 addr show dev eth0")
    assert after["addr_info"] == before["addr_info"]


def test_replace_succeeds_if_address_and_routes_are_missing(container: Container, namespace: Namespace) -> None:
    container.run("ip addr flush dev eth0")
    change = RouteChange((default_route("10.1.0.1"),), (default_route("10.1.0.254"),))
    namespace.addresses.replace(namespace.link("eth0"), [OLD], [NEW], change)
    assert NEW in namespace.addresses.of(namespace.link("eth0"))
    assert routes(container) == {"default via 10.1.0.254"}
