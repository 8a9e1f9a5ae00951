"""Tests of `pycni install --server`: the systemd units, and the server started as systemd starts it."""

import configparser
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.testing import Container, wait_for

pytestmark = pytest.mark.skipif(
    not installation.has_compiled_launcher(), reason="needs the compiled launcher: a C compiler"
)
UNITS = ["pycni.service", "pycni.socket"]
LINKS = ["multi-user.target.wants/pycni.service", "sockets.target.wants/pycni.socket"]
# Settings that give a service its own mount, user or network namespace (systemd.exec(5)). The server
# runs no calls from another namespace in its own process (pycni/server/access.py).
NAMESPACE_SETTINGS = {
    "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers", "ProtectSystem", "ProtectHome", "ProtectProc",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProcSubset",
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
    "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "MountAPIVFS", "MountFlags",
    "DynamicUser", "PrivateNetwork", "PrivateIPC", "LoadCredential", "SetCredential",
}  # fmt: skip


class Node:
    """The plugin, unit, socket and state directories of a node, below a directory of the test."""

    def __init__(self, root: Path) -> None:
        self.bin, self.units, self.socket = root / "bin", root / "system", root / "run" / "pycni.sock"
        self.state = root / "state"

    def pycni(self, command: str, *options: str | Path) -> "subprocess.CompletedProcess[str]":
        places = [self.bin, "--state-dir", self.state, "--units-dir", self.units]
        return subprocess.run(
            [sys.executable, "-m", "pycni", command, *places, *options], capture_output=True, text=True, check=False
        )

    def install(self) -> None:
        done = self.pycni("install", "--server", "--socket", self.socket)
        assert done.returncode == 0, done.stderr

    def unit(self, name: str) -> dict[str, str]:
        """Return the settings of a unit."""
        parser = configparser.RawConfigParser(interpolation=None, strict=False)  # systemd allows repeated keys
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(self.units / name)
        return {key: value for section in parser.sections() for key, value in parser[section].items()}

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.units)) for path in self.units.rglob("*") if not path.is_dir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_install_writes_and_enables_units_and_uninstall_removes_them(node: Node) -> None:
    node.install()
    node.install()
    assert node.files() == sorted(UNITS + LINKS)
    assert [(node.units / link).resolve() for link in LINKS] == [node.units / unit for unit in UNITS]
    assert node.unit("pycni.socket")["ListenStream"] == str(node.socket)
    done = node.pycni("uninstall")
    assert (done.returncode, node.files(), list(node.bin.iterdir())) == (0, [], [])
    assert f"{node.units}/pycni.service" in done.stdout


@pytest.mark.exhaustive
def test_uninstall_keeps_the_units_of_other_launchers(node: Node, tmp_path: Path) -> None:
    node.install()
    other = Node(tmp_path)
    other.bin = tmp_path / "other"
    assert other.pycni("uninstall").stdout == ""
    assert node.files() == sorted(UNITS + LINKS)


def test_units_not_created_by_pycni_are_not_replaced(node: Node) -> None:
    node.units.mkdir()
    (node.units / "pycni.socket").write_text("[Unit]\nDescription=another program\n")
    done = node.pycni("install", "--server")
    assert done.returncode == 1
    assert f"{node.units}/pycni.socket exists and is not a unit of pycni" in done.stderr
    assert node.files() == ["pycni.socket"]
    assert not node.bin.exists()
    node.pycni("uninstall")
    assert node.files() == ["pycni.socket"]


@pytest.mark.exhaustive
def test_units_are_removed_if_launchers_cannot_be_installed(node: Node) -> None:
    node.bin.touch()
    node.bin /= "below"
    done = node.pycni("install", "--server")
    assert done.returncode == 1
    assert f"cannot install into {node.bin}: not a directory" in done.stderr
    assert node.files() == []


def test_nothing_is_installed_if_the_unit_directory_is_not_writable(node: Node) -> None:
    node.units.touch()
    node.units /= "below"
    done = node.pycni("install", "--server")
    assert f"cannot install units into {node.units}: " in done.stderr
    assert not node.bin.exists()


def test_python_and_server_options_exclude_each_other(node: Node) -> None:
    assert "--python and --server exclude each other" in node.pycni("install", "--server", "--python").stderr


def test_systemd_accepts_the_units(node: Node) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze: see scripts/setup")
    node.socket = node.socket.with_name("with 100% blanks.sock")
    node.install()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(node.units / name for name in UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "pycni" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_service_stays_in_the_mount_namespace_of_the_host(node: Node) -> None:
    node.install()
    assert not NAMESPACE_SETTINGS & set(node.unit("pycni.service"))


class Systemd:
    """systemd-socket-activate(1) in place of systemd, with the environment and capability bounds of the service."""

    def __init__(self, node: Node) -> None:
        service = node.unit("pycni.service")
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.settimeout(30)
        address = node.socket.parent / "notify"
        address.parent.mkdir()
        self.notified.bind(str(address))
        allowed = [f"+{name.removeprefix('CAP_').lower()}" for name in service["CapabilityBoundingSet"].split()]
        confined = ["setpriv", f"--bounding-set=-all,{','.join(allowed)}", "--no-new-privs"]
        listening = ["systemd-socket-activate", f"--listen={node.unit('pycni.socket')['ListenStream']}"]
        settings = [f"--setenv={setting}" for setting in (service["Environment"], f"NOTIFY_SOCKET={address}")]
        self.log = node.socket.parent / "server.log"
        with self.log.open("wb") as log:
            command = [*confined, *listening, *settings, *shlex.split(service["ExecStart"])]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(node.socket.is_socket, "the listening socket")

    def next_notification(self) -> str:
        """Return the next notification of the service."""
        return self.notified.recv(4096).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notified.close()


@pytest.fixture
def systemd(node: Node) -> Iterator[Systemd]:
    if not shutil.which("systemd-socket-activate"):
        pytest.skip("needs systemd-socket-activate: see scripts/setup")
    node.install()
    made = Systemd(node)
    yield made
    made.close()


CHAIN = [
    {"type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True},
    {"type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True, "ipMasqBackend": "iptables"},
]


@pytest.mark.parametrize("config", CHAIN, ids=["nftables", "iptables"])
def test_first_call_starts_the_service_with_the_capabilities_that_plugins_need(
    node: Node, systemd: Systemd, container: Container, config: dict[str, Any]
) -> None:
    (installation.oneshot_directory(node.bin, node.state) / "bridge").unlink()  # so that only the server can answer
    ipam = {"type": "host-local", "dataDir": str(node.state / "networks"), "subnet": "10.1.0.0/24"}
    document = {"cniVersion": "1.1.0", "name": "net", "ipam": ipam, **config}

    def call(command: str, **more: Any) -> Any:
        done = subprocess.run(
            [node.bin / "bridge"],
            input=json.dumps({**document, **more}).encode(),
            env={**os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": container.id, "CNI_NETNS": container.path,
                 "CNI_IFNAME": "eth0", "CNI_PATH": str(node.bin)},
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout or "null")

    result = call("ADD")
    assert systemd.next_notification() == "READY=1"
    assert container.pings("10.1.0.1")
    call("CHECK", prevResult=result)
    call("DEL", prevResult=result)
    systemd.process.send_signal(signal.SIGTERM)
    assert systemd.next_notification() == "STOPPING=1"
    assert systemd.process.wait(30) == 0, systemd.log.read_text()
    assert node.socket.is_socket()  # systemd owns the socket and starts the service again at the next call
