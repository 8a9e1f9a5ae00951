"""bandwidth: whole lives, failures and deaths, with every option; and lives that change hands with the Go plugin."""

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
def made(container: Container) -> dict[str, Any]:
    """The result of the bridge before."""
    return PluginRunner("bridge", container, bridge="br0", isGateway=True, ipam=IPAM).add()


@by_case
def test_it_leaves_nothing_behind(container: Container, made: dict[str, Any], case: dict[str, Any]) -> None:
    check_lifecycle(PluginRunner("bandwidth", container, prevResult=made, **case))


@by_case
def test_a_failed_add_leaves_nothing_behind(container: Container, made: dict[str, Any], case: dict[str, Any]) -> None:
    assert fail_at_every_change(lambda: PluginRunner("bandwidth", container, prevResult=made, **case)) >= 1


@by_case
@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del(
    container: Container, made: dict[str, Any], case: dict[str, Any]
) -> None:
    assert kill_at_every_change(lambda: PluginRunner("bandwidth", container, prevResult=made, **case), gc=False) >= 1


@pytest.mark.parametrize("hands", [*itertools.product(["ours", "go"], repeat=3)], ids="-".join)
def test_a_life_that_changes_hands(
    host: Host, container: Container, made: dict[str, Any], go_runner: type[PluginRunner], hands: tuple[str, str, str]
) -> None:
    before = host.run("ip -br link | sort")
    limits = {**INGRESS, **EGRESS}
    runtimes = {
        "ours": PluginRunner("bandwidth", container, prevResult=made, **limits),
        "go": go_runner("bandwidth", container, prevResult=made, **limits),
    }
    adds, checks, deletes = (runtimes[hand] for hand in hands)
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
def test_go_checks_whatever_rate_ours_made(
    container: Container, made: dict[str, Any], go_runner: type[PluginRunner], rate: int, burst: int
) -> None:
    """It wants the kernel's number of ticks to be its own, to the last one."""
    limits = {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst}
    ours, theirs = (by("bandwidth", container, prevResult=made, **limits) for by in (PluginRunner, go_runner))
    theirs.result = ours.add()
    theirs.check()
    ours.check()
