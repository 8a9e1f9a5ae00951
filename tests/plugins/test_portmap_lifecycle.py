"""portmap: whole lives, failures and deaths, dual stack, with every option, by both backends."""

from typing import Any

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

MAPPINGS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "10.1.0.1"},
    {"hostPort": 8443, "containerPort": 443, "protocol": "tcp", "hostIP": "fd00:1::1"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
    {"hostPort": 9999, "containerPort": 99, "protocol": "sctp"},
]
BOTH: dict[str, dict[str, Any]] = {
    "plain": {},
    "no snat": {"snat": False},
    "all masqueraded": {"masqAll": True},
}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{name} by {backend}": {**case, "backend": backend}
        for name, case in BOTH.items()
        for backend in ("nftables", "iptables")
    },
    "nobody chose": {},
    "another mark": {"backend": "iptables", "markMasqBit": 5},
    "conditions by nftables": {
        "conditionsV4": ["ip", "saddr", "10.0.0.0/8"],
        "conditionsV6": ["ip6", "saddr", "fd00::/8"],
    },
    "conditions of one family": {"conditionsV4": ["ip", "saddr", "10.0.0.0/8"]},
    "conditions by iptables": {"conditionsV4": ["-s", "10.0.0.0/8"], "conditionsV6": ["!", "-s", "fd01::/16"]},
}
EVERYDAY = {"plain by nftables", "plain by iptables", "all masqueraded by nftables", "conditions of one family"}
by_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in EVERYDAY else pytest.mark.exhaustive)
        for name, case in CASES.items()
    ],
)


@pytest.fixture
def made(container: Container) -> dict[str, Any]:
    """What the bridge before it made."""
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
    return PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam).add()


def runtime(container: Container, made: dict[str, Any], case: dict[str, Any]) -> PluginRunner:
    of = PluginRunner("portmap", container, runtimeConfig={"portMappings": MAPPINGS}, prevResult=made, **case)
    of.result = made
    return of


@by_case
def test_it_leaves_nothing_behind(container: Container, made: dict[str, Any], case: dict[str, Any]) -> None:
    check_lifecycle(runtime(container, made, case))


@by_case
def test_a_failed_add_leaves_nothing_behind(container: Container, made: dict[str, Any], case: dict[str, Any]) -> None:
    assert fail_at_every_change(lambda: runtime(container, made, case)) > 1


@by_case
@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del_or_gc(
    container: Container, made: dict[str, Any], case: dict[str, Any]
) -> None:
    assert kill_at_every_change(lambda: runtime(container, made, case)) > 1


def test_a_life_with_the_legacy_iptables(container: Container, made: dict[str, Any], iptables: str) -> None:
    check_lifecycle(runtime(container, made, {"backend": "iptables"}))
    tables = container.host.run("cat /proc/thread-self/net/ip_tables_names").split()
    assert ("nat" in tables) == (iptables == "legacy")
