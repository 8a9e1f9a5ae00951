"""Another address for an interface in use: what goes, what comes, and what becomes of everybody's routes."""

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_interface

import pytest

from pycni.kernel.link.address_change import RouteChange
from pycni.kernel.namespace import Namespace
from pycni.protocol.result import Route
from pycni.testing import Container

OLD, NEW, ELSEWHERE = (ip_interface(text) for text in ("10.1.0.2/24", "10.1.0.3/24", "10.2.0.3/24"))


def default(gateway: str) -> Route:
    return Route(ip_interface("0.0.0.0/0"), IPv4Address(gateway))


@pytest.fixture
def place(container: Container) -> Iterator[Namespace]:
    """A namespace with eth0, which has the old address and a default route."""
    container.run("ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up")
    container.run(f"ip addr add {OLD} dev eth0 && ip route add default via 10.1.0.1")
    made = Namespace.at(container.path)
    yield made
    made.close()


def routes(container: Container) -> set[str]:
    lines = container.run("ip -4 route show table all dev eth0").splitlines()
    return {" ".join(line.split()) for line in lines if "proto kernel" not in line}


def test_routes_of_others_come_back_with_all_their_attributes(container: Container, place: Namespace) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9 metric 5 mtu 1300 advmss 1200")
    container.run("ip route add 10.9.0.0/16 via 10.1.0.9 table 77 src 10.1.0.2")
    change = RouteChange((default("10.1.0.1"),), (default("10.1.0.254"),))
    place.addresses.replace(place.link("eth0"), [OLD], [NEW], change)
    assert NEW in place.addresses.of(place.link("eth0"))
    assert OLD not in place.addresses.of(place.link("eth0"))
    assert routes(container) == {
        "default via 10.1.0.254",
        "10.8.0.0/16 via 10.1.0.9 metric 5 mtu 1300 advmss 1200",
        "10.9.0.0/16 via 10.1.0.9 table 77",
    }


def test_a_route_without_a_way_to_its_gateway_is_lost_and_said_so(
    container: Container, place: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9")
    place.addresses.replace(place.link("eth0"), [OLD], [ELSEWHERE], RouteChange((default("10.1.0.1"),)))
    assert routes(container) == set()
    assert "the route to 10.8.0.0/16 via 10.1.0.9 is lost" in caplog.text


def test_another_address_of_the_link_keeps_what_goes_by_it(
    container: Container, place: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    container.run("ip addr add 10.7.0.2/24 dev eth0 && ip route add 10.8.0.0/16 via 10.7.0.1 src 10.7.0.2")
    change = RouteChange((default("10.1.0.1"),), (default("10.2.0.1"),))
    place.addresses.replace(place.link("eth0"), [OLD], [ELSEWHERE], change)
    assert routes(container) == {"default via 10.2.0.1", "10.8.0.0/16 via 10.7.0.1 src 10.7.0.2"}
    assert caplog.text == ""


def test_where_the_address_stays_only_routes_change(container: Container, place: Namespace) -> None:
    container.run("ip route add 10.8.0.0/16 via 10.1.0.9")
    change = RouteChange((default("10.1.0.1"),), (default("10.1.0.254"),))
    (before,) = container.json("ip -j -4 addr show dev eth0")
    place.addresses.replace(place.link("eth0"), [OLD], [OLD], change)
    assert routes(container) == {"default via 10.1.0.254", "10.8.0.0/16 via 10.1.0.9"}
    (after,) = container.json("ip -j -4 addr show dev eth0")
    assert after["addr_info"] == before["addr_info"]


def test_what_is_gone_already_is_no_failure(container: Container, place: Namespace) -> None:
    container.run("ip addr flush dev eth0")
    change = RouteChange((default("10.1.0.1"),), (default("10.1.0.254"),))
    place.addresses.replace(place.link("eth0"), [OLD], [NEW], change)
    assert NEW in place.addresses.of(place.link("eth0"))
    assert routes(container) == {"default via 10.1.0.254"}
