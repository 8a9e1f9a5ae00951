"""The server: the same answers as the one-shot, for everybody at once, and over its own restarts."""

import json
import os
import signal
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.cli import installation
from pycni.sdk import registry, unixsocket
from pycni.server import frames, serve
from pycni.server.server import Server
from pycni.testing import Container, Host, wait_for

Stage = Any


@pytest.mark.usefixtures("server")
def test_it_answers_as_the_one_shot_does(stage: Stage) -> None:
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
def test_it_works_in_its_callers_namespaces(stage: Stage, host: Host) -> None:
    """The host of a call is where its launcher was started, not where the server was."""
    containers = [Container(host) for _ in range(24)]

    def call(command: str, container: Container, **env: str) -> Any:
        with host.door.entered():  # this thread, and the process it starts
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


def test_a_foreign_plugin_that_takes_long_stands_in_nobodys_way(
    stage: Stage, host: Host, container: Container, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    os.mkfifo(begun)
    os.mkfifo(go_on)
    slow = stage.bin / "slow"
    slow.write_text(
        f'#!/bin/sh\necho > {begun}\nread line < {go_on}\necho \'{{"ips": [{{"address": "10.1.0.2/24"}}]}}\'\n'
    )
    slow.chmod(0o755)
    config = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "slow"}}).encode()
    plugins = {name: registry.load(name) for name in ("bridge", "static")}
    with unixsocket.listening(stage.socket) as listener, ThreadPoolExecutor(1) as pool:
        server = Server(listener, plugins, workers=1)
        server.start()
        where = {"CNI_CONTAINERID": container.id, "CNI_NETNS": container.path}
        adding = pool.submit(stage.run, "ADD", config, "bridge", **where)
        begun.read_text()
        assert stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
        go_on.write_text("\n")
        done = adding.result(30)
        assert server.drain(30)
    assert done.returncode == 0, done.stdout


def test_nothing_grows_with_the_number_of_calls(stage: Stage, host: Host, container: Container) -> None:
    server = stage.serve("--workers", "1")  # each worker keeps what it has opened first

    def live() -> None:
        for command in ("ADD", "DEL"):
            done = stage.run(command, bridge(host), "bridge", CNI_CONTAINERID=container.id, CNI_NETNS=container.path)
            assert done.returncode == 0, done.stdout

    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))

    for _ in range(20):
        live()
    before = descriptors()
    for _ in range(30):
        live()
    wait_for(lambda: descriptors() <= before, f"no more than {before} descriptors")
    server.terminate()
    assert server.wait(30) == 0


@pytest.mark.usefixtures("server")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200)
    | st.tuples(*[st.integers(0, 2**32 - 1)] * 3).map(lambda n: struct.pack("=IIII", frames.MAGIC, *n)),
    descriptors=st.integers(0, 3),
)
def test_whatever_comes_in_by_the_socket_it_goes_on(stage: Stage, data: bytes, descriptors: int) -> None:
    with socket.socket(socket.AF_UNIX) as connection, open("/dev/null", "rb") as null:  # noqa: PTH123
        connection.connect(str(stage.socket))
        if descriptors and data:
            socket.send_fds(connection, [data], [null.fileno()] * descriptors)
        else:
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        with suppress(ConnectionResetError):
            assert connection.recv(1) in (b"", frames.REFUSED)


def test_no_call_is_lost_while_the_launcher_is_replaced(stage: Stage, server: "subprocess.Popen[bytes]") -> None:
    """Issue 1221 of multus: "text file busy" while an executable is written in place."""
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(stage.run, "ADD") for _ in range(50)]
        for _ in range(5):
            installation.install(stage.bin, ["static", "bridge", "host-local"], stage.state, socket=stage.socket)
        assert [call.result().stdout for call in calls if call.result().returncode] == []
    assert server.poll() is None


def test_a_second_server_takes_over_and_no_call_is_lost(stage: Stage, server: "subprocess.Popen[bytes]") -> None:
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(stage.run, "ADD") for _ in range(50)]
        second = stage.serve()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert [call.result().stdout for call in calls if call.result().returncode] == []
    assert stage.run("ADD").returncode == 0
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert not stage.socket.exists()


def test_it_starts_itself_anew_when_the_installation_changes(
    stage: Stage, server: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    said = stage.state / "server.log"
    site = Path(installation.__file__).parents[2]
    os.utime(site)
    wait_for(lambda: said.read_text().count("serving at") == 2, "the server to start anew", seconds=30)
    assert server.poll() is None
    assert stage.run("ADD").returncode == 0


def test_a_resident_part_that_does_not_start_harms_nobody(tmp_path: Path) -> None:
    begun: list[Path] = []

    class Broken:
        @classmethod
        def resident(cls, _run: Path) -> Any:
            raise RuntimeError("out of order")

    class Sound:
        @classmethod
        @contextmanager
        def resident(cls, run: Path) -> Any:
            begun.append(run)
            yield
            begun.clear()

    with ExitStack() as residents:
        serve._house({"broken": Broken, "sound": Sound}, residents, tmp_path)
        assert begun == [tmp_path]
    assert begun == []
