"""dhcp: the resident server keeps the leases, and answers everybody else while somebody waits for one."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import sub
from pathlib import Path

import pytest

from pycni.kernel.scheduling import poll_with_backoff
from pycni.testing import Container, Host, wait_for

from .conftest import BRIDGE, BridgeOf, Keeper, Lan, Served, address_of

SECONDS = 8
THREADS = 3  # of a server with one worker: the first, the keeper's, the worker's
ENDS = [pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGKILL]


@pytest.mark.parametrize("end", ENDS)
def test_a_lease_is_got_kept_and_returned_over_a_restart_of_the_server(
    lan: Lan, served: Served, container: Container, end: signal.Signals
) -> None:
    lan.isc(seconds=SECONDS)
    served.start()
    runtime = served.bridged(container)
    address = runtime.add()["ips"][0]["address"]
    served.stop(end)
    served.start()
    (record,) = served.records()
    wait_for(lambda: served.records()[0]["lease"]["obtained"] > record["lease"]["obtained"], "the renewal", seconds=30)
    assert address_of(container) == [address]
    assert container.pings("10.55.0.1")
    runtime.check()
    runtime.delete()
    assert served.records() == []
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")


def test_no_call_loads_a_module(
    lan: Lan,
    served: Served,
    container: Container,
    audited: Callable[[Path], Callable[[], list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The other plugins: tests/server/test_preloading.py."""
    lan.isc(seconds=SECONDS)
    loaded = audited(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    served.start()
    runtime = served.bridged(container)
    runtime.status()
    runtime.add()
    runtime.check()
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")
    runtime.gc()
    served.stop()
    assert loaded() == []


def test_who_waits_for_a_lease_stands_in_nobodys_way(
    lan: Lan, served: Served, keeper: Keeper, containers: list[Container], host: Host
) -> None:
    """With one worker, three ADDs wait for a DHCP server that is not there: others are answered meanwhile."""
    waiting = [served.bridged(container) for container in containers]
    quick = served.attachment("static", containers[0], ipam={"addresses": [{"address": "10.1.0.2/24"}]})

    with served.answered_here(workers=1), ThreadPoolExecutor(len(waiting)) as pool:
        adding = [pool.submit(lambda r=runtime: (host.netns.enter_permanently(), r.add())) for runtime in waiting]
        for number in range(1, len(waiting) + 1):
            wait_for(lambda n=number: keeper.said().count("acquiring a lease") >= n, "the ADDs", seconds=30)
        assert quick.add()["ips"][0]["address"] == "10.1.0.2/24"
        assert not any(one.done() for one in adding)
        lan.isc()
        assert len({one.result(60)[1]["ips"][0]["address"] for one in adding}) == len(waiting)
        for _ in range(5):  # those who stood in have gone, the one worker has not
            quick.add()
        for runtime in waiting:
            runtime.delete()


@pytest.mark.exhaustive
def test_the_server_takes_over_when_the_daemon_ends(
    lan: Lan, served: Served, bridge: BridgeOf, no_keeper: Keeper, container: Container
) -> None:
    assert no_keeper.socket == served.run / "cni" / "dhcp.sock"
    lan.isc()
    no_keeper.start()
    served.start()
    assert "another keeper of DHCP leases listens" in served.said()
    runtime = served.bridged(container)
    runtime.add()
    no_keeper.stop()
    wait_for(lambda: "keeping DHCP leases at" in served.said(), "the server's keeper", seconds=20)
    runtime.check()
    runtime.delete()
    assert served.records() == []


def test_nothing_grows_with_the_number_of_leases(lan: Lan, served: Served, containers: list[Container]) -> None:
    """Go: a thread and an open namespace for each lease, and memory for each look at it (DH-35, R-50)."""
    lan.isc()
    served.start("--workers", "1", "--processes", "1")
    runtimes = [served.bridged(container) for container in containers]
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    quick = served.attachment("bridge", containers[0], ifname="eth1", bridge=BRIDGE, ipam=ipam)

    def opened() -> tuple[int, int]:
        process = Path(f"/proc/{served.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def use() -> tuple[int, int]:
        quick.add()  # has the worker open all that it keeps open, be it the first one or one that stood in
        quick.delete()
        return min(opened() for _ in poll_with_backoff(0.1))  # until the kernel has done with what is deleted

    def live() -> None:
        for runtime in runtimes:
            runtime.add()
        for runtime in runtimes:
            runtime.check()
            runtime.delete()

    for _ in range(3):
        live()
    wait_for(lambda: use()[1] == THREADS, "those who stood in have gone")
    before = min(use() for _ in range(5))
    for runtime in runtimes:
        runtime.add()
    wait_for(lambda: max(map(sub, use(), before)) <= 0, f"what there was without leases: {before}")
    for runtime in runtimes:
        runtime.delete()
    for _ in range(3):
        live()
    wait_for(lambda: max(map(sub, use(), before)) <= 0, f"what there was before: {before}")
