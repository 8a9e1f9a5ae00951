"""The on-demand server: started by a call, for its user namespace, and gone when it is not used."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pycni.cli import installation
from pycni.server import on_demand
from pycni.server.on_demand import RunningServer
from pycni.testing import Container, Host, wait_for

Stage = Any
HOUR = 3600.0
PLUGINS = ["static", "bridge", "host-local"]


class OnDemand:
    """A plugin directory whose launchers start a server."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.key = installation.installation_key(stage.bin)
        self.install()
        self.script = stage.state / "servers" / self.key
        self.inode = Path("/proc/self/ns/user").stat().st_ino
        self.socket = stage.socket.with_name(f"{self.key}-{self.inode}.sock")
        self.log = self.socket.with_suffix(".log")

    def install(self, idle_timeout: float | None = HOUR) -> None:
        installation.install(
            self.stage.bin, PLUGINS, self.stage.state, socket=self.stage.socket, idle_timeout=idle_timeout
        )

    def replace_script(self, commands: str) -> None:
        """Have launchers start something else than the server."""
        self.script.write_text(f"#!/bin/sh\n{commands}\n")

    def started(self) -> RunningServer:
        """Make a call that starts the server, and wait until it serves."""
        assert self.stage.run("ADD").returncode == 0
        wait_for(lambda: RunningServer.find(self.socket), "the server", seconds=60)
        found = RunningServer.find(self.socket)
        assert found is not None
        return found

    def is_served(self) -> bool:
        """Make a call, and return whether a server has executed it."""
        return bool(self.stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0)

    def lock_is_free(self) -> bool:
        """Return whether no process of a server is left that holds the lock."""
        return subprocess.run(["flock", "--nonblock", self.log, "true"], check=False).returncode == 0

    def files(self) -> list[str]:
        """Return the names of the files beside the socket that belong to on-demand servers."""
        return sorted(path.name for path in self.stage.socket.parent.glob(f"{self.key}-*"))

    def close(self) -> None:
        for pid in on_demand.running_processes(self.key):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def launchers(stage: Stage) -> Iterator[OnDemand]:
    with TemporaryDirectory(prefix="pycni-") as directory:  # the path of a socket has at most 107 bytes
        made = OnDemand(type(stage)(Path(directory)))
        yield made
        made.close()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(further for child in children for further in descendants_of(child))]


def test_the_first_call_starts_a_server_which_executes_the_next_one(launchers: OnDemand) -> None:
    server = launchers.started()
    assert launchers.is_served()
    assert server.status["started_by"] == "a call"
    assert server.status["idle_timeout"] == HOUR


def test_version_starts_no_server(launchers: OnDemand) -> None:
    assert launchers.stage.run("VERSION").returncode == 0
    assert launchers.files() == []


def test_without_an_on_demand_server_nothing_is_started(launchers: OnDemand) -> None:
    launchers.install(idle_timeout=None)
    assert launchers.stage.run("ADD").returncode == 0
    assert (launchers.files(), launchers.script.exists()) == ([], False)


def test_the_caller_waits_neither_for_the_server_nor_for_the_end_of_its_output(
    launchers: OnDemand, tmp_path: Path
) -> None:
    """The server starts after the one-shot process has ended, with no descriptor of the caller's."""
    begun, events = tmp_path / "begun", tmp_path / "events"
    os.mkfifo(begun)
    launchers.replace_script(f"echo server >>{events}; echo $$ >{begun}; exec cat {begun}")
    launchers.stage.replace_oneshots()
    script = launchers.stage.scripts / "static"
    script.write_text(f"{script.read_text()}\necho one-shot >>{events}\n")
    assert launchers.stage.run("ADD").returncode == 0  # and stdout and stderr are at their ends
    pid = int(begun.read_text())
    process = Path(f"/proc/{pid}")
    wait_for(lambda: (process / "comm").read_text() == "cat\n", "the shell to have closed its own descriptors")
    assert events.read_text().split() == ["one-shot", "server"]
    targets = {fd.name: str(fd.readlink()) for fd in (process / "fd").iterdir()}
    assert [targets[number] for number in "012"] == ["/dev/null", "/dev/null", str(launchers.log)]
    assert not any(target.startswith(("pipe:", "socket:")) for target in targets.values())
    assert (process / "cwd").readlink() == Path("/")
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def starts(launchers: OnDemand, tmp_path: Path) -> Path:
    """A file with a line for each start; what is started ends when `end` is written."""
    starts, end = tmp_path / "starts", tmp_path / "end"
    os.mkfifo(end)
    launchers.replace_script(f"echo $$ >>{starts}; read line <{end}")
    launchers.stage.replace_oneshots()
    return starts


def test_simultaneous_first_calls_start_one_server(launchers: OnDemand, starts: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(launchers.stage.run, "ADD") for _ in range(24)]
        assert {call.result().returncode for call in calls} == {0}
    wait_for(starts.exists, "the start")
    with (tmp_path / "end").open("w") as end:
        end.write("\n")
    assert len(starts.read_text().split()) == 1


def test_a_failed_start_is_repeated_after_a_while_only(launchers: OnDemand, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    launchers.replace_script(f"echo start >>{starts}; exit 1")

    launchers.stage.run("ADD")
    wait_for(starts.exists, "the first attempt")
    wait_for(launchers.lock_is_free, "its end")
    for _ in range(3):
        assert launchers.stage.run("ADD").returncode == 0
    assert starts.read_text() == "start\n"
    os.utime(launchers.log, (0, 0))
    launchers.stage.run("ADD")
    wait_for(lambda: starts.read_text() == "start\nstart\n", "the second attempt")


@pytest.mark.parametrize("mode", [0o777, 0o730])
def test_a_directory_that_others_may_write_is_not_trusted(launchers: OnDemand, starts: Path, mode: int) -> None:
    launchers.stage.socket.parent.mkdir()
    launchers.stage.socket.parent.chmod(mode)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(launchers.socket))
        listener.listen()
        listener.setblocking(False)
        assert launchers.stage.run("ADD").returncode == 0
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not starts.exists()


def test_it_ends_when_it_is_not_used(launchers: OnDemand) -> None:
    launchers.install(idle_timeout=0.1)
    server = launchers.started()
    wait_for(lambda: not is_running(server.pid), "its end", seconds=30)
    assert launchers.files() == []
    assert launchers.started().pid != server.pid


def test_it_ends_when_pycni_is_uninstalled(launchers: OnDemand) -> None:
    server = launchers.started()
    children = children_of(server.pid)
    installation.uninstall(launchers.stage.bin, launchers.stage.state)
    assert not any(is_running(pid) for pid in (server.pid, *children))
    assert launchers.files() == []
    assert not launchers.script.exists()


@pytest.mark.parametrize("what", ["script", "socket"])
def test_it_ends_when_its_script_or_socket_is_removed(launchers: OnDemand, what: str) -> None:
    server = launchers.started()
    getattr(launchers, what).unlink()
    wait_for(lambda: not is_running(server.pid), "its end", seconds=30)
    assert launchers.files() == []


def test_it_restarts_when_the_installation_changes(launchers: OnDemand) -> None:
    text = launchers.script.read_text()
    added = f'sys.path.append("{launchers.stage.modules}"); from pycni.cli'
    launchers.script.write_text(text.replace("from pycni.cli", added))
    before = launchers.started()
    launchers.stage.upgrade()
    wait_for(
        lambda: (found := RunningServer.find(launchers.socket)) and found.status["since"] > before.status["since"],
        "the restart",
        seconds=60,
    )
    after = RunningServer.find(launchers.socket)
    assert after is not None
    assert after.pid == before.pid
    assert launchers.is_served()
    assert on_demand.stop(after.pid)
    assert launchers.files() == []


def test_it_is_killed_and_nothing_is_lost(launchers: OnDemand) -> None:
    server = launchers.started()
    os.kill(server.pid, signal.SIGKILL)
    wait_for(launchers.lock_is_free, "the end of its processes", seconds=30)
    os.utime(launchers.log, (0, 0))
    assert launchers.started().pid != server.pid


def test_it_keeps_no_network_namespace_of_a_caller(launchers: OnDemand, host: Host) -> None:
    container = Container(host)
    ipam = {"type": "host-local", "dataDir": str(host.state / "networks"), "subnet": "10.1.0.0/16"}
    config = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}).encode()

    def call(command: str, **env: str) -> Any:
        with host.netns.enter():
            return launchers.stage.run(
                command, config, "bridge", CNI_CONTAINERID=container.id, CNI_NETNS=container.path, **env
            )

    with host.netns.enter():
        server = launchers.started()
    assert call("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
    assert call("DEL", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
    kept = {f"net:[{Path(path).stat().st_ino}]" for path in (host.path, container.path)}

    def namespaces() -> set[str]:
        tasks = [task for pid in (server.pid, *children_of(server.pid)) for task in Path(f"/proc/{pid}/task").iterdir()]
        return {str((task / "ns/net").readlink()) for task in tasks}

    wait_for(lambda: not kept & namespaces(), "the end of its stay in the caller's namespaces")
    container.close()


USER_NAMESPACE = """
import json, os, subprocess, sys

def call(command, plugin, config, *before, **env):
    done = subprocess.run(
        [*before, os.path.join(sys.argv[1], plugin)], input=json.dumps(config).encode(), capture_output=True,
        env={**os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": "id", "CNI_NETNS": "/nowhere",
             "CNI_IFNAME": "eth0", "CNI_PATH": sys.argv[1], **env})
    return [done.returncode, done.stdout.decode()]

print(json.dumps([os.stat("/proc/self/ns/user").st_ino, call(*json.loads(sys.argv[2]))]), flush=True)
for line in sys.stdin:
    arguments, env = json.loads(line)
    print(json.dumps(call(*arguments, **env)), flush=True)
"""


class UserNamespace:
    """Root of a user namespace, as in rootless podman: calls are made in mount namespaces of their own."""

    def __init__(self, launchers: OnDemand, runtime: Path) -> None:
        self.runtime, self._store = runtime, str(runtime / "networks")
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, "-c", USER_NAMESPACE]
        first = json.dumps(self._arguments())
        self._process = subprocess.Popen(
            [*command, launchers.stage.bin, first],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(runtime)},
        )  # fmt: skip
        inode, self.first = self._read()
        self.socket = runtime / "pycni" / f"{launchers.key}-{inode}.sock"

    def call(self, container: str, *before: str, **env: str) -> Any:
        """ADD of host-local in a new mount namespace, in which the store is an empty file system."""
        assert self._process.stdin is not None
        mount = f'mount -t tmpfs none {self._store}; "$@"; status=$?; ls {self._store}/net >&2; exit $status'
        enter = ["unshare", "--mount", "sh", "-c", mount, "sh", *before]
        request = [[*self._arguments(), *enter], {"CNI_CONTAINERID": container, **env}]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _arguments(self) -> list[Any]:
        (self.runtime / "networks").mkdir(exist_ok=True)
        ipam = {"type": "host-local", "dataDir": self._store, "subnet": "10.1.0.0/24"}
        config = {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": ipam}
        return ["ADD", "host-local", config]

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:  # closes its pipes
            self._process.kill()


@pytest.fixture
def user_namespace(launchers: OnDemand) -> Iterator[UserNamespace]:
    runtime = launchers.stage.bin.with_name("user")
    runtime.mkdir(mode=0o700)
    made = UserNamespace(launchers, runtime)
    assert made.first[0] == 0, made.first
    yield made
    made.close()


def address(answer: Any) -> str:
    status, stdout = answer
    assert status == 0, stdout
    return str(json.loads(stdout)["ips"][0]["address"])


def test_in_a_user_namespace_it_serves_every_mount_namespace(user_namespace: UserNamespace) -> None:
    """Each call of rootless podman has a mount namespace of its own, and paths mean what they mean there."""
    wait_for(lambda: RunningServer.find(user_namespace.socket), "the server", seconds=60)
    for container in ("c1", "c2"):
        served = user_namespace.call(container, PYCNI_ONESHOT_DIR="/nowhere")
        assert address(served) == "10.1.0.2/24"  # the store of this mount namespace is empty
    names = {path.name for path in (user_namespace.runtime / "networks" / "net").glob("10.*")}
    assert names == {"10.1.0.2"}, "only the first call, which was made in the outer mount namespace"
    server = RunningServer.find(user_namespace.socket)
    assert server is not None
    mounts = {ns for child in descendants_of(server.pid) for ns in [Path(f"/proc/{child}/ns/mnt").readlink()]}
    assert len(mounts) == 3  # the server's and those of the two calls
    own = Path(f"/proc/{server.pid}/ns/mnt").readlink()

    def remaining() -> set[Path]:
        return {Path(f"/proc/{child}/ns/mnt").readlink() for child in descendants_of(server.pid) if is_running(child)}

    wait_for(lambda: remaining() == {own}, "the end of the processes in the mount namespaces of the calls", seconds=30)
    assert on_demand.stop(server.pid)


def test_in_a_user_namespace_a_caller_with_fewer_capabilities_is_refused(
    user_namespace: UserNamespace, launchers: OnDemand
) -> None:
    wait_for(lambda: RunningServer.find(user_namespace.socket), "the server", seconds=60)
    launchers.stage.replace_oneshots()
    drop = ["setpriv", "--bounding-set", "-sys_boot", "--inh-caps", "-sys_boot"]
    _, stdout = user_namespace.call("c1", *drop)
    assert stdout.startswith("one-shot")


def test_in_a_user_namespace_the_server_keeps_neither_mounts_nor_the_network_namespace(
    user_namespace: UserNamespace,
) -> None:
    wait_for(lambda: RunningServer.find(user_namespace.socket), "the server", seconds=60)
    server = RunningServer.find(user_namespace.socket)
    assert server is not None
    process = Path(f"/proc/{user_namespace._process.pid}")
    for pid in (server.pid, *children_of(server.pid)):
        for kind in ("net", "mnt"):
            assert Path(f"/proc/{pid}/ns/{kind}").readlink() != (process / "ns" / kind).readlink()


def test_the_command_shows_and_stops_it(launchers: OnDemand) -> None:
    def pycni(*arguments: str) -> str:
        command = [sys.executable, "-m", "pycni", "server", "--socket", str(launchers.stage.socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    server = launchers.started()
    shown = pycni()
    assert f"pid {server.pid} at {launchers.socket}\n" in shown
    assert "by a call\n" in shown
    assert "ends after 60 min 0 s" in shown
    assert f"stopped the server with pid {server.pid}\n" in pycni("stop")
    assert not is_running(server.pid)
    assert launchers.files() == []
