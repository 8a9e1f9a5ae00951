"""Turns: one call after the other in a process, several processes, and nobody who stops the others."""

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
FOR_EVER = 1000.0


@pytest.fixture
def _nobody_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_follower, "_TURN_LIMIT", FOR_EVER)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.mark.usefixtures("_nobody_is_late")
def test_who_is_next_takes_the_lead_when_the_leader_steps_aside(pool: ThreadPoolExecutor) -> None:
    turn, said = LeaderFollower(), list[str]()
    assert turn.lead_if_vacant()
    taking = pool.submit(lambda: (turn.wait_for_lead(), said.append("taken")))
    wait_for(lambda: turn._next is not None, "who is next")
    assert not pool.submit(turn.lead_if_vacant).result()
    said.append("ended")
    turn.resign()
    assert taking.result()[0]
    assert said == ["ended", "taken"]


@pytest.mark.usefixtures("_nobody_is_late")
def test_who_waits_for_calls_need_not_be_helped(pool: ThreadPoolExecutor) -> None:
    turn = LeaderFollower()
    assert turn.lead_if_vacant()
    assert turn.set_idle()
    assert not pool.submit(turn.wait_for_lead).result()
    turn.set_busy()
    taking = pool.submit(turn.wait_for_lead)
    wait_for(lambda: turn._next is not None, "who is next")
    turn.resign()
    assert taking.result()


def test_who_takes_too_long_loses_the_lead(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_follower, "_TURN_LIMIT", 0)
    turn = LeaderFollower()
    assert turn.lead_if_vacant()
    assert pool.submit(turn.wait_for_lead).result()
    assert not turn.set_idle()
    turn.resign()  # it is not ours
    assert not pool.submit(turn.lead_if_vacant).result()
    turn.resume()  # and who has it is late too: nobody waits for ever


@pytest.mark.usefixtures("_nobody_is_late")
def test_who_comes_back_to_his_call_is_first(pool: ThreadPoolExecutor) -> None:
    turn, said = LeaderFollower(), list[str]()
    assert turn.lead_if_vacant()

    def lead(name: str, become: Any) -> None:
        become()
        said.append(name)
        turn.resign()

    both = [pool.submit(lead, "next", turn.wait_for_lead), pool.submit(lead, "back", turn.resume)]
    wait_for(lambda: turn._next is not None and turn._resuming, "both")
    assert not turn.set_idle()  # but for calls that have waited, the leader would go on
    for one in both:
        one.result()
    assert said == ["back", "next"]
    assert turn.lead_if_vacant()


class Blocking(Plugin[NetConf]):
    """A plugin that waits without saying so."""

    begun: ClassVar[threading.Semaphore]
    go_on: ClassVar[threading.Event]

    def add(self, _cni: Attachment[NetConf]) -> Result:
        self.begun.release()
        assert self.go_on.wait(60)
        return Result()

    def check(self, _cni: Attachment[NetConf]) -> None:
        """Nothing to see."""

    def delete(self, _cni: Attachment[NetConf]) -> None:
        """Nothing to do."""


@pytest.fixture
def blocking() -> Iterator[type[Blocking]]:
    Blocking.begun, Blocking.go_on = threading.Semaphore(0), threading.Event()
    yield Blocking
    Blocking.go_on.set()


def test_a_plugin_that_waits_without_saying_so_does_not_stop_the_others(
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


@pytest.mark.usefixtures("_nobody_is_late")
def test_servers_at_one_socket_answer_at_the_same_time(
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


def helpers(server: "subprocess.Popen[bytes]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def test_the_server_goes_on_without_a_helping_process(stage: Stage) -> None:
    server = stage.serve("--processes", "3")
    first, second = helpers(server)
    os.kill(first, signal.SIGKILL)
    said = stage.state / "server.log"
    wait_for(lambda: f"worker process {first} has ended" in said.read_text(), "the message")
    assert helpers(server) == [second]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(stage.run, "ADD", PYCNI_ONESHOT_DIR="/nowhere") for _ in range(40)]
        assert {call.result().returncode for call in calls} == {0}
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert not Path(f"/proc/{second}").exists()
    assert "abandoned" not in said.read_text()


def test_helping_processes_end_with_the_server(stage: Stage) -> None:
    server = stage.serve("--processes", "3")
    pids = helpers(server)
    assert len(pids) == 2
    server.kill()
    server.wait(30)
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "their end", seconds=30)
