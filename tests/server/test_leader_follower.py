"""Tests of the scheduler of worker threads, and of servers with several processes."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pycni.sdk import Attachment, NetConf, Plugin, Result, registry, unix_socket
from pycni.server import leader_follower
from pycni.server.leader_follower import LeaderFollower
from pycni.server.server import Server
from pycni.testing import wait_for

Stage = Any
FOREVER = 1000.0


@pytest.fixture
def _no_turn_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_follower, "_TURN_LIMIT", FOREVER)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.mark.usefixtures("_no_turn_limit")
def test_next_thread_becomes_leader_when_the_leader_resigns(pool: ThreadPoolExecutor) -> None:
    scheduler, events = LeaderFollower(), list[str]()
    assert scheduler.lead_if_vacant()
    taking = pool.submit(lambda: (scheduler.wait_for_lead(), events.append("taken")))
    wait_for(lambda: scheduler._next is not None, "the next thread")
    assert not pool.submit(scheduler.lead_if_vacant).result()
    events.append("ended")
    scheduler.resign()
    assert taking.result()[0]
    assert events == ["ended", "taken"]


@pytest.mark.usefixtures("_no_turn_limit")
def test_waiting_thread_does_not_replace_an_idle_leader(pool: ThreadPoolExecutor) -> None:
    scheduler = LeaderFollower()
    assert scheduler.lead_if_vacant()
    assert scheduler.set_idle()
    assert not pool.submit(scheduler.wait_for_lead).result()
    scheduler.set_busy()
    taking = pool.submit(scheduler.wait_for_lead)
    wait_for(lambda: scheduler._next is not None, "the next thread")
    scheduler.resign()
    assert taking.result()


def test_leader_that_exceeds_the_limit_is_replaced(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_follower, "_TURN_LIMIT", 0)
    scheduler = LeaderFollower()
    assert scheduler.lead_if_vacant()
    assert pool.submit(scheduler.wait_for_lead).result()
    assert not scheduler.set_idle()
    scheduler.resign()  # has no effect: another thread is the leader
    assert not pool.submit(scheduler.lead_if_vacant).result()
    scheduler.resume()  # replaces the new leader, which has exceeded the limit too


@pytest.mark.usefixtures("_no_turn_limit")
def test_thread_that_resumes_a_call_goes_before_the_next_leader(pool: ThreadPoolExecutor) -> None:
    scheduler, events = LeaderFollower(), list[str]()
    assert scheduler.lead_if_vacant()

    def lead(name: str, become: Any) -> None:
        become()
        events.append(name)
        scheduler.resign()

    both = [pool.submit(lead, "next", scheduler.wait_for_lead), pool.submit(lead, "back", scheduler.resume)]
    wait_for(lambda: scheduler._next is not None and scheduler._resuming, "both threads")
    assert not scheduler.set_idle()  # without waiting calls, the leader would continue
    for one in both:
        one.result()
    assert events == ["back", "next"]
    assert scheduler.lead_if_vacant()


class Blocking(Plugin[NetConf]):
    """A plugin that blocks without telling the scheduler."""

    begun: ClassVar[threading.Semaphore]
    go_on: ClassVar[threading.Event]

    def add(self, _cni: Attachment[NetConf]) -> Result:
        self.begun.release()
        assert self.go_on.wait(60)
        return Result()

    def check(self, _cni: Attachment[NetConf]) -> None:
        """Do nothing."""

    def delete(self, _cni: Attachment[NetConf]) -> None:
        """Do nothing."""


@pytest.fixture
def blocking() -> Iterator[type[Blocking]]:
    Blocking.begun, Blocking.go_on = threading.Semaphore(0), threading.Event()
    yield Blocking
    Blocking.go_on.set()


def test_plugin_that_blocks_without_yielding_does_not_block_other_calls(
    stage: Stage, pool: ThreadPoolExecutor, blocking: type[Blocking]
) -> None:
    with unix_socket.unix_listener(stage.socket) as listener:
        server = Server(listener, {"static": registry.load("static"), "bridge": blocking}, workers=2)
        server.start()
        waiting = pool.submit(stage.run, "ADD", plugin="bridge")
        assert blocking.begun.acquire(timeout=30)
        assert stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
        blocking.go_on.set()
        assert waiting.result(30).returncode == 0
        assert server.drain(30)


@pytest.mark.usefixtures("_no_turn_limit")
def test_two_servers_on_one_socket_answer_concurrently(
    stage: Stage, pool: ThreadPoolExecutor, blocking: type[Blocking]
) -> None:
    with unix_socket.unix_listener(stage.socket) as listener:
        servers = [Server(listener, {"static": blocking}, workers=2) for _ in range(2)]
        for server in servers:
            server.start()
        waiting = [pool.submit(stage.run, "ADD", PYCNI_ONESHOT_DIR="/nowhere") for _ in range(2)]
        assert blocking.begun.acquire(timeout=30)
        assert blocking.begun.acquire(timeout=30)
        blocking.go_on.set()
        assert [one.result(30).returncode for one in waiting] == [0, 0]
        assert all(server.drain(30) for server in servers)


def worker_processes(server: "subprocess.Popen[bytes]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def test_server_continues_after_a_worker_process_dies(stage: Stage) -> None:
    server = stage.serve("--processes", "3")
    first, second = worker_processes(server)
    os.kill(first, signal.SIGKILL)
    log = stage.state / "server.log"
    wait_for(lambda: f"worker process {first} has ended" in log.read_text(), "the log message", seconds=30)
    wait_for(lambda: worker_processes(server) == [second], "the server to reap the process", seconds=30)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(stage.run, "ADD", PYCNI_ONESHOT_DIR="/nowhere") for _ in range(40)]
        assert {call.result().returncode for call in calls} == {0}
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert not Path(f"/proc/{second}").exists()
    assert "abandoned" not in log.read_text()


def test_worker_processes_exit_with_the_server(stage: Stage) -> None:
    server = stage.serve("--processes", "3")
    pids = worker_processes(server)
    assert len(pids) == 2
    server.kill()
    server.wait(30)
    wait_for(
        lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "the worker processes to exit", seconds=30
    )
