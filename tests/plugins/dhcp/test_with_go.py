"""dhcp beside the Go plugins: the same results, and each one's bridge with the other one's dhcp."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pycni.cli import installation
from pycni.testing import Container, PluginRunner, wait_for

from .conftest import BRIDGE, Keeper, Lan, Process

if TYPE_CHECKING:
    from tests.plugins.conftest import GoPlugins

pytestmark = pytest.mark.exhaustive


@pytest.fixture
def go_daemon(go_plugins: "GoPlugins", tmp_path: Path) -> Iterator[Path]:
    """The socket of a Go daemon."""
    socket = tmp_path / "go" / "dhcp.sock"
    daemon = Process(None, tmp_path / "go.log", go_plugins.directory / "dhcp", "daemon", "-socketpath", socket)
    wait_for(socket.exists, "the Go daemon")
    yield socket
    daemon.stop()


def chosen(directory: Path, go_plugins: "GoPlugins", *, ours: str) -> Path:
    """A plugin directory in which one plugin is ours and the others are Go's."""
    installation.install(directory, [ours], directory.with_name("state"), python=True)
    for plugin in {"bridge", "dhcp"} - {ours}:
        (directory / plugin).symlink_to(go_plugins.directory / plugin)
    return directory


def call(directory: Path, socket: Path, container: Container, command: str, **extra: Any) -> Any:
    """One call of the bridge in the directory; what it answers."""
    ipam = {"type": "dhcp", "daemonSocketPath": str(socket)}
    config = {"cniVersion": "1.0.0", "name": "test", "type": "bridge", "bridge": BRIDGE, "ipam": ipam, **extra}
    env = {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container.id,
        "CNI_NETNS": container.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
    }
    done = subprocess.run(
        [directory / "bridge"],
        env=env,
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout) if done.stdout else None


def what_dhcp_says(result: dict[str, Any]) -> tuple[Any, Any]:
    return result["ips"], result["routes"]


def test_the_result_is_the_same(
    lan: Lan, keeper: Keeper, go_plugins: "GoPlugins", go_daemon: Path, container: Container
) -> None:
    lan.isc()
    theirs = call(go_plugins.directory, go_daemon, container, "ADD")
    call(go_plugins.directory, go_daemon, container, "DEL", prevResult=theirs)
    runtime = PluginRunner(
        "bridge", container, bridge=BRIDGE, ipam={"type": "dhcp", "daemonSocketPath": str(keeper.socket)}
    )
    assert what_dhcp_says(runtime.add()) == what_dhcp_says(theirs)


def test_gos_bridge_with_our_dhcp(
    lan: Lan, keeper: Keeper, go_plugins: "GoPlugins", container: Container, tmp_path: Path
) -> None:
    lan.isc()
    directory = chosen(tmp_path / "bin", go_plugins, ours="dhcp")
    result = call(directory, keeper.socket, container, "ADD")
    call(directory, keeper.socket, container, "CHECK", prevResult=result)
    call(directory, keeper.socket, container, "DEL", prevResult=result)
    assert keeper.records() == []


def test_our_bridge_lets_gos_dhcp_release_too(
    lan: Lan, go_plugins: "GoPlugins", go_daemon: Path, container: Container, tmp_path: Path
) -> None:
    lan.isc()
    directory = chosen(tmp_path / "bin", go_plugins, ours="bridge")
    result = call(directory, go_daemon, container, "ADD")
    call(directory, go_daemon, container, "DEL", prevResult=result)
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")
