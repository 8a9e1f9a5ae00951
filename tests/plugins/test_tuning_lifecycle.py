"""tuning: lifecycle, failures and killed processes with every option, and attachments shared with the Go plugin."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

IPAM = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
LINK = {"mac": "02:00:5e:00:00:01", "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 777}
SYSCTL = {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "77"}}
GO_1_1_OPTIONS = {**LINK, "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}
del GO_1_1_OPTIONS["txQLen"]
CASES: dict[str, dict[str, Any]] = {
    **{name: {name: value} for name, value in LINK.items()},
    "sysctl": SYSCTL,
    "all at once": {**LINK, **SYSCTL},
    "from the runtime": {"runtimeConfig": {"mac": "02:00:5e:00:00:02"}, "args": {"cni": {"mtu": 1300, **SYSCTL}}},
}
by_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
# DEL keeps sysctls, so a second ADD changes none. test_tuning_regressions.py tests how a failed ADD restores them.
by_case_of_link = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in CASES.items() if name != "sysctl"]
)


@pytest.fixture
def bridge_result(container: Container) -> dict[str, Any]:
    """The result of bridge's ADD."""
    return PluginRunner("bridge", container, bridge="br0", isGateway=True, ipam=IPAM).add()


@pytest.fixture
def data_dir(container: Container) -> str:
    return str(container.host.state / "tuning")


@contextmanager
def unchanged(container: Container) -> Iterator[None]:
    """Assert that the block leaves the interface unchanged, including MTU and queue length, which snapshots omit."""
    before = container.run("ip -d link show eth0")
    yield
    assert container.run("ip -d link show eth0") == before


@by_case
def test_add_check_and_del_leave_nothing_behind(
    container: Container, bridge_result: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    with unchanged(container):
        check_lifecycle(PluginRunner("tuning", container, prevResult=bridge_result, dataDir=data_dir, **case))


@by_case_of_link
def test_failed_add_leaves_nothing_behind(
    container: Container, bridge_result: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    def make() -> PluginRunner:
        return PluginRunner("tuning", container, prevResult=bridge_result, dataDir=data_dir, **case)

    with unchanged(container):
        assert fail_at_every_change(make) >= 1


@by_case_of_link
@pytest.mark.exhaustive
def test_del_cleans_up_after_a_killed_add(
    container: Container, bridge_result: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    def make() -> PluginRunner:
        return PluginRunner("tuning", container, prevResult=bridge_result, dataDir=data_dir, **case)

    with unchanged(container):
        assert kill_at_every_change(make, gc=False) >= 1


@pytest.mark.parametrize("implementations", [*itertools.product(["pycni", "go"], repeat=3)], ids="-".join)
@pytest.mark.parametrize(
    "options", [GO_1_1_OPTIONS, pytest.param({**LINK, **SYSCTL}, marks=pytest.mark.newer_go)], ids=["old", "all"]
)
def test_add_check_and_del_by_either_implementation(
    container: Container,
    bridge_result: dict[str, Any],
    data_dir: str,
    go_runner: type[PluginRunner],
    implementations: tuple[str, str, str],
    options: dict[str, Any],
) -> None:
    """Go 1.1 does not know txQLen, and its CHECK fails with IFNAME."""
    show = "ip -d link show eth0 | head -2; ip -4 addr"
    before = container.run(show)
    config = {**options, "dataDir": data_dir, "prevResult": bridge_result}
    runners = {"pycni": PluginRunner("tuning", container, **config), "go": go_runner("tuning", container, **config)}
    adds, checks, deletes = (runners[name] for name in implementations)
    checks.result = deletes.result = adds.add()
    assert container.run(show) != before
    checks.check()
    deletes.delete()
    assert container.run(show) == before
    assert list(Path(data_dir).iterdir()) == []
