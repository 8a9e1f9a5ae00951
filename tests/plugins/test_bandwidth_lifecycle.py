"""bandwidth: lifecycle, failures and killed processes with every option, and attachments shared with the Go plugin."""

import itertools
from typing import Any

import pytest

from pycni.testing import Container, Host, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

IPAM = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
INGRESS = {"ingressRate": 1_000_000, "ingressBurst": 800_000}
EGRESS = {"egressRate": 2_000_000, "egressBurst": 1_600_000}
CASES: dict[str, dict[str, Any]] = {
    "ingress": INGRESS,
    "egress": EGRESS,
    "both": {**INGRESS, **EGRESS},
    "from the runtime": {"runtimeConfig": {"bandwidth": {**INGRESS, **EGRESS}}},
    "unlimited bursts": {**INGRESS, "ingressBurst": 34359738359, **EGRESS, "egressBurst": 4294967295},
}
by_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


@pytest.fixture
def bridge_result(container: Container) -> dict[str, Any]:
    """The result of bridge's ADD."""
    return PluginRunner("bridge", container, bridge="br0", isGateway=True, ipam=IPAM).add()


@by_case
def test_add_check_and_del_leave_nothing_behind(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    check_lifecycle(PluginRunner("bandwidth", container, prevResult=bridge_result, **case))


@by_case
def test_failed_add_leaves_nothing_behind(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    assert fail_at_every_change(lambda: PluginRunner("bandwidth", container, prevResult=bridge_result, **case)) >= 1


@by_case
@pytest.mark.exhaustive
def test_del_cleans_up_after_a_killed_add(
    container: Container, bridge_result: dict[str, Any], case: dict[str, Any]
) -> None:
    assert (
        kill_at_every_change(lambda: PluginRunner("bandwidth", container, prevResult=bridge_result, **case), gc=False)
        >= 1
    )


@pytest.mark.parametrize("implementations", [*itertools.product(["pycni", "go"], repeat=3)], ids="-".join)
def test_add_check_and_del_by_either_implementation(
    host: Host,
    container: Container,
    bridge_result: dict[str, Any],
    go_runner: type[PluginRunner],
    implementations: tuple[str, str, str],
) -> None:
    before = host.run("ip -br link | sort")
    limits = {**INGRESS, **EGRESS}
    runners = {
        "pycni": PluginRunner("bandwidth", container, prevResult=bridge_result, **limits),
        "go": go_runner("bandwidth", container, prevResult=bridge_result, **limits),
    }
    adds, checks, deletes = (runners[name] for name in implementations)
    checks.result = deletes.result = adds.add()
    checks.check()
    deletes.delete()
    assert host.run("ip -br link | sort") == before
    PluginRunner("bandwidth", container).delete()
    assert "tbf" not in host.run("tc qdisc show")


@pytest.mark.parametrize(
    ("rate", "burst"),
    [
        (3_000_000, 300_000),
        (7_000_000, 7_000_000),
        (900_000_000, 90_000_000),
        (10**9, 2**31 - 1),
        (8 * 10**10, 8 * 10**8),
    ],
)
def test_go_check_accepts_every_rate_set_by_pycni(
    container: Container, bridge_result: dict[str, Any], go_runner: type[PluginRunner], rate: int, burst: int
) -> None:
    """Go's CHECK compares the burst in kernel ticks exactly."""
    limits = {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst}
    by_pycni, by_go = (
        runner_class("bandwidth", container, prevResult=bridge_result, **limits)
        for runner_class in (PluginRunner, go_runner)
    )
    by_go.result = by_pycni.add()
    by_go.check()
    by_pycni.check()
