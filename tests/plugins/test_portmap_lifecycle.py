"""portmap: lifecycle, failures and killed processes, dual stack, with every option and both backends."""

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
    "default backend": {},
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
def bridge_result(container: Container) -> dict[str, Any]:
    """The result of bridge's ADD."""
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
    return PluginRunner("bridge", container, bridge="br0", isDefaultGateway=True, ipam=ipam).add()


def portmap_runner(container: Container, bridge_result: dict[str, Any], case: dict[str, Any]) -> PluginRunner:
    runner = PluginRunner(
        "portmap", container, runtimeConfig={"portMappings": MAPPINGS}, prevResult=bridge_result, **case
    )
    runner.result = bridge_result
    return runner


@by_case
def test_add_check_and_del_leave_nothing_behind(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    check_lifecycle(portmap_runner(container, bridge_result, case))


@by_case
def test_failed_add_leaves_nothing_behind(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    assert fail_at_every_change(lambda: portmap_runner(container, bridge_result, case)) > 1


@by_case
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    assert kill_at_every_change(lambda: portmap_runner(container, bridge_result, case)) > 1


def test_lifecycle_with_each_variant_of_iptables(
    container: Container, bridge_result: dict[str, Any], iptables: str
) -> None:
    check_lifecycle(portmap_runner(container, bridge_result, {"backend": "iptables"}))
    tables = container.host.run("cat /proc/thread-self/net/ip_tables_names").split()
    assert ("nat" in tables) == (iptables == "legacy")
