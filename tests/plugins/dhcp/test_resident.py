"""dhcp: the resident server maintains leases, and answers other calls while ADDs wait for a lease."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import sub
from pathlib import Path

import pytest

from pycni.kernel.scheduling import poll_with_backoff
from pycni.testing import Container, Host, wait_for

from .conftest import BRIDGE, CreateBridgeRunner, Lan, LeaseDaemon, ResidentServer, addresses_of

LEASE_SECONDS = 8
THREADS = 3  # of a server with one worker: the main thread, the lease daemon's, the worker's
SIGNALS = [pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGKILL]


@pytest.mark.parametrize("end", SIGNALS)
def test_lease_is_renewed_and_released_after_a_restart_of_the_server(
    lan: Lan, server: ResidentServer, container: Container, end: signal.Signals
) -> None:
    lan.isc(seconds=LEASE_SECONDS)
    server.start()
    runner = server.bridge_attachment(container)
    address = runner.add()["ips"][0]["address"]
    server.stop(end)
    server.start()
    (record,) = server.records()
    wait_for(lambda: server.records()[0]["lease"]["obtained"] > record["lease"]["obtained"], "the renewal", seconds=30)
    assert addresses_of(container) == [address]
    assert container.pings("10.55.0.1")
    runner.check()
    runner.delete()
    assert server.records() == []
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")


def test_calls_import_no_module(
    lan: Lan,
    server: ResidentServer,
    container: Container,
    record_imports: Callable[[Path], Callable[[], list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """tests/server/test_preloading.py does the same for the other plugins."""
    lan.isc(seconds=LEASE_SECONDS)
    imported_modules = record_imports(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server.start()
    runner = server.bridge_attachment(container)
    runner.status()
    runner.add()
    runner.check()
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")
    runner.gc()
    server.stop()
    assert imported_modules() == []


def test_calls_that_wait_for_a_lease_do_not_block_other_calls(
    lan: Lan, server: ResidentServer, lease_daemon: LeaseDaemon, containers: list[Container], host: Host
) -> None:
    """With one worker, three ADDs wait for a DHCP server that does not run yet. The server answers other calls."""
    waiting = [server.bridge_attachment(container) for container in containers]
    quick = server.attachment("static", containers[0], ipam={"addresses": [{"address": "10.1.0.2/24"}]})

    with server.serving_here(workers=1), ThreadPoolExecutor(len(waiting)) as pool:
        adding = [pool.submit(lambda r=runner: (host.netns.enter_permanently(), r.add())) for runner in waiting]
        for number in range(1, len(waiting) + 1):
            wait_for(lambda n=number: lease_daemon.log_text().count("acquiring a lease") >= n, "the ADDs", seconds=30)
        assert quick.add()["ips"][0]["address"] == "10.1.0.2/24"
        assert not any(one.done() for one in adding)
        lan.isc()
        assert len({one.result(60)[1]["ips"][0]["address"] for one in adding}) == len(waiting)
        for _ in range(5):  # the replacement threads have ended, the worker has not
            quick.add()
        for runner in waiting:
            runner.delete()


@pytest.mark.exhaustive
def test_server_takes_over_the_leases_when_the_daemon_stops(
    lan: Lan, server: ResidentServer, bridge: CreateBridgeRunner, stopped_daemon: LeaseDaemon, container: Container
) -> None:
    assert stopped_daemon.socket == server.run / "cni" / "dhcp.sock"
    lan.isc()
    stopped_daemon.start()
    server.start()
    assert "another DHCP lease daemon listens" in server.log_text()
    runner = server.bridge_attachment(container)
    runner.add()
    stopped_daemon.stop()
    wait_for(lambda: "the DHCP lease daemon listens at" in server.log_text(), "the server's lease daemon", seconds=20)
    runner.check()
    runner.delete()
    assert server.records() == []


def test_threads_and_descriptors_do_not_grow_with_the_number_of_leases(
    lan: Lan, server: ResidentServer, containers: list[Container]
) -> None:
    """Go: a thread and an open namespace per lease, and memory for each look at a link."""
    lan.isc()
    server.start("--workers", "1", "--processes", "1")
    runners = [server.bridge_attachment(container) for container in containers]
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}
    quick = server.attachment("bridge", containers[0], ifname="eth1", bridge=BRIDGE, ipam=ipam)

    def opened() -> tuple[int, int]:
        process = Path(f"/proc/{server.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def use() -> tuple[int, int]:
        quick.add()  # makes the worker, the first one or its replacement, open the sockets that it caches
        quick.delete()
        return min(opened() for _ in poll_with_backoff(0.1))  # the kernel deletes asynchronously

    def cycle() -> None:
        for runner in runners:
            runner.add()
        for runner in runners:
            runner.check()
            runner.delete()

    for _ in range(3):
        cycle()
    wait_for(lambda: use()[1] == THREADS, "the end of the replacement threads")
    before = min(use() for _ in range(5))
    for runner in runners:
        runner.add()
    wait_for(lambda: max(map(sub, use(), before)) <= 0, f"no more than without leases: {before}")
    for runner in runners:
        runner.delete()
    for _ in range(3):
        cycle()
    wait_for(lambda: max(map(sub, use(), before)) <= 0, f"no more than before: {before}")
