"""tuning: whole lives, failures and deaths, with every option; and lives that change hands with the Go plugin."""

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
OLD = {**LINK, "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}
del OLD["txQLen"]
CASES: dict[str, dict[str, Any]] = {
    **{name: {name: value} for name, value in LINK.items()},
    "sysctl": SYSCTL,
    "all at once": {**LINK, **SYSCTL},
    "from the runtime": {"runtimeConfig": {"mac": "02:00:5e:00:00:02"}, "args": {"cni": {"mtu": 1300, **SYSCTL}}},
}
by_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
# Sysctls stay after DEL, so a second ADD has none to change: how a failed ADD undoes them is told in the stories.
by_case_of_link = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in CASES.items() if name != "sysctl"]
)


@pytest.fixture
def made(container: Container) -> dict[str, Any]:
    """The result of the bridge before."""
    return PluginRunner("bridge", container, bridge="br0", isGateway=True, ipam=IPAM).add()


@pytest.fixture
def data_dir(container: Container) -> str:
    return str(container.host.state / "tuning")


@contextmanager
def unchanged(container: Container) -> Iterator[None]:
    """See that the interface is as it was, in what snapshots leave out too: MTU and queue."""
    before = container.run("ip -d link show eth0")
    yield
    assert container.run("ip -d link show eth0") == before


@by_case
def test_it_leaves_nothing_behind(
    container: Container, made: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    with unchanged(container):
        check_lifecycle(PluginRunner("tuning", container, prevResult=made, dataDir=data_dir, **case))


@by_case_of_link
def test_a_failed_add_leaves_nothing_behind(
    container: Container, made: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    def make() -> PluginRunner:
        return PluginRunner("tuning", container, prevResult=made, dataDir=data_dir, **case)

    with unchanged(container):
        assert fail_at_every_change(make) >= 1


@by_case_of_link
@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del(
    container: Container, made: dict[str, Any], data_dir: str, case: dict[str, Any]
) -> None:
    def make() -> PluginRunner:
        return PluginRunner("tuning", container, prevResult=made, dataDir=data_dir, **case)

    with unchanged(container):
        assert kill_at_every_change(make, gc=False) >= 1


@pytest.mark.parametrize("hands", [*itertools.product(["ours", "go"], repeat=3)], ids="-".join)
@pytest.mark.parametrize(
    "options", [OLD, pytest.param({**LINK, **SYSCTL}, marks=pytest.mark.newer_go)], ids=["old", "all"]
)
def test_a_life_that_changes_hands(
    container: Container,
    made: dict[str, Any],
    data_dir: str,
    go_runner: type[PluginRunner],
    hands: tuple[str, str, str],
    options: dict[str, Any],
) -> None:
    """The older Go plugin does not know txQLen yet, and its CHECK fails on IFNAME."""
    show = "ip -d link show eth0 | head -2; ip -4 addr"
    before = container.run(show)
    config = {**options, "dataDir": data_dir, "prevResult": made}
    runtimes = {"ours": PluginRunner("tuning", container, **config), "go": go_runner("tuning", container, **config)}
    adds, checks, deletes = (runtimes[hand] for hand in hands)
    checks.result = deletes.result = adds.add()
    assert container.run(show) != before
    checks.check()
    deletes.delete()
    assert container.run(show) == before
    assert list(Path(data_dir).iterdir()) == []
