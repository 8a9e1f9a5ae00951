"""Tests of the server: it answers like the one-shot, serves calls concurrently and loses none when it restarts."""

import itertools
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.cli import installation
from pycni.sdk import registry, unix_socket
from pycni.server import lifecycle, wire
from pycni.server.server import Server
from pycni.testing import Container, Host, wait_for

Stage = Any


@pytest.mark.usefixtures("server")
def test_server_and_one_shot_give_the_same_answers(stage: Stage) -> None:
    for command in ("VERSION", "ADD", "DEL", "STATUS", "GC", "NONSENSE"):
        served = stage.run(command)
        alone = stage.run(command, PYCNI_SOCKET="/nowhere")
        assert (served.returncode, served.stdout) == (alone.returncode, alone.stdout), command
    assert stage.run("").stderr == stage.run("", PYCNI_SOCKET="/nowhere").stderr


def bridge(host: Host) -> bytes:
    ipam = {"type": "host-local", "dataDir": str(host.state / "networks"), "subnet": "10.1.0.0/16"}
    config = {"cniVersion": "1.1.0", "name": "served", "type": "bridge", "bridge": "br0", "ipMasq": True}
    return json.dumps({**config, "isDefaultGateway": True, "ipam": ipam}).encode()


@pytest.mark.usefixtures("server")
def test_server_works_in_the_network_namespace_of_its_caller(stage: Stage, host: Host) -> None:
    """A call uses the network namespace in which its launcher was started, not the one of the server."""
    containers = [Container(host) for _ in range(24)]

    def call(command: str, container: Container, **env: str) -> Any:
        with host.netns.enter():  # applies to this thread and the process that it starts
            return stage.run(
                command, bridge(host), "bridge", CNI_CONTAINERID=container.id, CNI_NETNS=container.path, **env
            )

    with ThreadPoolExecutor(12) as pool:
        added = list(pool.map(lambda container: call("ADD", container), containers))
    assert [done.stdout for done in added if done.returncode] == []
    addresses = {json.loads(done.stdout)["ips"][0]["address"] for done in added}
    assert len(addresses) == len(containers)
    assert all(container.pings("10.1.0.1") for container in containers[:3])
    assert "veth" in host.run("ip -br link")
    with ThreadPoolExecutor(12) as pool:
        deleted = list(pool.map(lambda container: call("DEL", container), containers))
    assert [done.stdout for done in deleted if done.returncode] == []
    assert "veth" not in host.run("ip -br link")
    for container in containers:
        container.close()


@dataclass
class SlowCall:
    """A call of bridge with a third-party IPAM plugin, which starts and ends when the test tells it to."""

    stage: Stage
    container: Container
    begun: Path
    go_on: Path

    def add(self) -> Any:
        config = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "slow"}}).encode()
        where = {"CNI_CONTAINERID": self.container.id, "CNI_NETNS": self.container.path}
        return self.stage.run("ADD", config, "bridge", PYCNI_ONESHOT_DIR="/nowhere", **where)


@pytest.fixture
def slow_call(stage: Stage, host: Host, container: Container, tmp_path: Path) -> SlowCall:
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    os.mkfifo(begun)
    os.mkfifo(go_on)
    slow = stage.bin / "slow"
    slow.write_text(
        f'#!/bin/sh\necho > {begun}\nread line < {go_on}\necho \'{{"ips": [{{"address": "10.1.0.2/24"}}]}}\'\n'
    )
    slow.chmod(0o755)
    return SlowCall(stage, container, begun, go_on)


def test_slow_third_party_plugin_does_not_block_other_calls(stage: Stage, slow_call: SlowCall) -> None:
    plugins = {name: registry.load(name) for name in ("bridge", "static")}
    with unix_socket.unix_listener(stage.socket) as listener, ThreadPoolExecutor(1) as pool:
        server = Server(listener, plugins, workers=1)
        server.start()
        adding = pool.submit(slow_call.add)
        slow_call.begun.read_text()
        assert stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
        slow_call.go_on.write_text("\n")
        done = adding.result(30)
        assert server.drain(30)
    assert done.returncode == 0, done.stdout


def test_stopped_server_leaves_no_open_descriptors(stage: Stage) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with unix_socket.unix_listener(stage.socket) as listener:
        server = Server(listener, {}, workers=2)
        server.start()
        assert server.drain(30)
        assert server.drain(30)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_descriptors_do_not_grow_with_the_number_of_calls(stage: Stage, host: Host, container: Container) -> None:
    server = stage.serve("--workers", "1", "--processes", "1")  # each worker caches the descriptors that it opens first

    def attach_and_detach() -> None:
        for command in ("ADD", "DEL"):
            done = stage.run(command, bridge(host), "bridge", CNI_CONTAINERID=container.id, CNI_NETNS=container.path)
            assert done.returncode == 0, done.stdout

    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))

    for _ in range(20):
        attach_and_detach()
    before = descriptors()
    for _ in range(30):
        attach_and_detach()
    wait_for(lambda: descriptors() <= before, f"no more than {before} descriptors")
    server.terminate()
    assert server.wait(30) == 0


@pytest.mark.exhaustive
@pytest.mark.timeout(1500)  # 1 800 calls, on a machine that may be busy
def test_memory_does_not_grow_with_the_number_of_attachments(stage: Stage, host: Host) -> None:
    """Caches are bounded: entries of the first attachments are evicted for later ones."""
    server = stage.serve("--workers", "1", "--processes", "1")

    def attach_and_detach(count: int) -> int:
        """Return the anonymous memory of the server in KiB after ADD and DEL of `count` containers."""
        for _ in range(count):
            container = Container(host)
            with host.netns.enter():
                for command in ("ADD", "DEL"):
                    where = {"CNI_CONTAINERID": container.id, "CNI_NETNS": container.path}
                    done = stage.run(command, bridge(host), "bridge", **where)
                    assert done.returncode == 0, done.stdout
            container.close()
        status = Path(f"/proc/{server.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0])

    before = attach_and_detach(300)
    assert attach_and_detach(600) < before + 300  # 0.5 KiB per attachment would be a leak
    server.terminate()
    assert server.wait(30) == 0


@pytest.mark.usefixtures("server")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200)
    | st.tuples(*[st.integers(0, 2**32 - 1)] * 3).map(lambda n: struct.pack("=IIII", wire.MAGIC, *n)),
    descriptors=st.integers(0, 3),
)
def test_server_survives_arbitrary_messages_on_its_socket(
    stage: Stage, count_input: Callable[[str], None], data: bytes, descriptors: int
) -> None:
    count_input("messages to the server's socket")
    with socket.socket(socket.AF_UNIX) as connection, open("/dev/null", "rb") as null:  # noqa: PTH123
        connection.connect(str(stage.socket))
        if descriptors and data:
            socket.send_fds(connection, [data], [null.fileno()] * descriptors)
        else:
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        with suppress(ConnectionResetError):
            assert connection.recv(1) in (b"", wire.REFUSED)


def test_call_cancelled_by_the_launcher_is_not_executed(stage: Stage, server: "subprocess.Popen[bytes]") -> None:
    environment = b"CNI_COMMAND=ADD\0CNI_CONTAINERID=c0\0CNI_IFNAME=eth0\0CNI_NETNS=/nowhere\0CNI_PATH=/nowhere\0"
    parts = b"static", environment, b"{}"
    with socket.socket(socket.AF_UNIX) as connection, open("/proc/self/ns/net", "rb") as netns:  # noqa: PTH123
        server.send_signal(signal.SIGSTOP)  # the server hangs
        connection.connect(str(stage.socket))
        header = struct.pack("=IIII", wire.MAGIC, *map(len, parts))
        socket.send_fds(connection, [header, *parts], [netns.fileno()])
        connection.shutdown(socket.SHUT_WR)
        server.send_signal(signal.SIGCONT)
        connection.settimeout(20)
        assert connection.recv(1) == wire.ACCEPTED
        assert connection.recv(1) == wire.REFUSED
    assert stage.answered() == {}


def attach(stage: Stage, number: int) -> Any:
    """Call ADD of host-local for container cNUMBER. A second execution fails or reserves a second address."""
    ipam = {"type": "host-local", "dataDir": str(stage.state / "networks"), "subnet": "10.1.0.0/16"}
    config = {"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": ipam}
    return stage.run("ADD", json.dumps(config).encode(), "host-local", CNI_CONTAINERID=f"c{number}")


def check_that_each_is_answered_once(stage: Stage, calls: list[Any], numbers: Iterable[int] = range(50)) -> None:
    assert [call.stdout for call in calls if call.returncode] == []
    wait_for(
        lambda: stage.answered().total() >= len(calls), "the log, which is written after the caller has its answer"
    )
    assert stage.answered() == {f"ADD c{number}": 1 for number in numbers}
    assert len(list((stage.state / "networks" / "net").glob("10.*"))) == len(calls)


def test_no_call_is_lost_or_executed_twice_while_the_launcher_is_replaced(
    stage: Stage, server: "subprocess.Popen[bytes]"
) -> None:
    """Executables must be replaced by rename: writing one in place fails with "text file busy" (multus issue 1221)."""
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(attach, stage, number) for number in range(50)]
        for _ in range(5):
            installation.install(stage.bin, ["static", "bridge", "host-local"], stage.state, socket=stage.socket)
        done = [call.result() for call in calls]
    assert server.poll() is None
    check_that_each_is_answered_once(stage, done)


@pytest.mark.exhaustive
def test_no_call_is_lost_or_executed_twice_while_a_second_server_takes_over(
    stage: Stage, server: "subprocess.Popen[bytes]"
) -> None:
    stage.count_oneshots()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(attach, stage, number) for number in range(50)]
        second = stage.serve()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        done = [call.result() for call in calls]
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert not stage.socket.exists()
    check_that_each_is_answered_once(stage, done)


def test_no_call_is_lost_or_executed_twice_while_the_server_is_upgraded(
    stage: Stage, server: "subprocess.Popen[bytes]"
) -> None:
    """The server restarts itself when the installation changes."""
    stage.count_oneshots()
    log = stage.state / "server.log"

    def attach_until_restarted(first: int) -> list[tuple[int, Any]]:
        numbers, calls = itertools.count(first, 4), []
        while len(calls) < 13 or log.read_text().count("serving at") < 2:
            calls.append((number := next(numbers), attach(stage, number)))
        return calls

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(attach_until_restarted, first) for first in range(4)]
        stage.upgrade()
        done = [call for some in calls for call in some.result()]
    assert server.poll() is None
    check_that_each_is_answered_once(stage, [call for _, call in done], [number for number, _ in done])


def test_installation_counts_as_changed_after_its_modification_times_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path), "/nowhere"])
    installed = lifecycle.Installation()
    assert not installed.has_changed()
    for times in range(1, 4):
        os.utime(tmp_path, ns=(times, times))
        assert not installed.has_changed()
    assert installed.has_changed()
    assert installed.has_changed()


@pytest.mark.exhaustive
def test_server_restarts_repeatedly(stage: Stage, server: "subprocess.Popen[bytes]") -> None:
    """Each restart passes the listening socket on."""
    log = stage.state / "server.log"
    for times in (2, 3):
        stage.upgrade()
        wait_for(lambda times=times: log.read_text().count("serving at") >= times, "the server", seconds=30)
        assert stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert not stage.socket.exists()


@pytest.mark.exhaustive
def test_server_that_is_told_to_stop_during_a_restart_stops(
    stage: Stage, server: "subprocess.Popen[bytes]", slow_call: SlowCall
) -> None:
    """The server first finishes the calls in progress."""
    log = stage.state / "server.log"
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(slow_call.add)
        slow_call.begun.read_text()
        stage.upgrade()
        wait_for(lambda: "the installation has changed" in log.read_text(), "the server to notice", seconds=30)
        server.send_signal(signal.SIGTERM)
        slow_call.go_on.write_text("\n")
        assert adding.result(30).returncode == 0
    assert server.wait(30) == 0
    assert log.read_text().count("serving at") == 1


@pytest.mark.usefixtures("server")
def test_server_answers_a_call_with_16_mib_of_stdin(stage: Stage) -> None:
    padding = {"x": "y" * (wire.STDIN_MAX - 200)}
    config = {"cniVersion": "1.1.0", "name": "n", "ipam": {"addresses": [{"address": "10.1.0.2/24"}]}, "args": padding}
    stdin = json.dumps(config).encode()
    assert wire.STDIN_MAX - 200 < len(stdin) <= wire.STDIN_MAX
    (stage.scripts / "static").unlink()
    done = stage.run("ADD", stdin)
    assert (done.returncode, json.loads(done.stdout)["ips"]) == (0, [{"address": "10.1.0.2/24"}])


@pytest.mark.usefixtures("server")
def test_stderr_of_a_delegate_is_returned_to_the_caller(stage: Stage, tmp_path: Path) -> None:
    delegate = tmp_path / "foreign" / "talkative"
    delegate.parent.mkdir()
    delegate.write_text("#!/bin/sh\ncat >/dev/null\necho it is warm today >&2\n")
    delegate.chmod(0o755)
    config = {"cniVersion": "1.1.0", "name": "net", "bridge": "none0", "ipam": {"type": "talkative"}}
    (stage.scripts / "bridge").unlink()
    done = stage.run("DEL", json.dumps(config).encode(), "bridge", CNI_PATH=str(delegate.parent), CNI_NETNS="")
    assert (done.returncode, done.stderr) == (0, b"it is warm today\n")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("server")
def test_version_is_served_with_invalid_paths(stage: Stage) -> None:
    """libcni calls VERSION with "dummy" as every path."""
    stage.replace_oneshots()
    done = stage.run("VERSION", CNI_PATH="dummy", CNI_NETNS="dummy")
    assert "supportedVersions" in json.loads(done.stdout)
    assert not stage.calls.exists()


def test_background_service_that_fails_to_start_does_not_affect_the_others(tmp_path: Path) -> None:
    running: list[Path] = []

    class Broken:
        @classmethod
        def background_service(cls, _run: Path) -> Any:
            raise RuntimeError("out of order")

    class Working:
        @classmethod
        @contextmanager
        def background_service(cls, run: Path) -> Any:
            running.append(run)
            yield
            running.clear()

    with ExitStack() as services:
        lifecycle._start_background_services({"broken": Broken, "working": Working}, services, tmp_path)
        assert running == [tmp_path]
    assert running == []
