"""dhcp with the Go plugins: same results, and each implementation's bridge with the other's dhcp."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pycni.cli import installation
from pycni.testing import Container, PluginRunner, wait_for

from .conftest import BRIDGE, Lan, LeaseDaemon, Process

if TYPE_CHECKING:
    from tests.plugins.conftest import GoPlugins

pytestmark = pytest.mark.exhaustive


@pytest.fixture
def go_daemon(go_plugins: "GoPlugins", tmp_path: Path) -> Iterator[Path]:
    """The socket of a running Go daemon."""
    socket = tmp_path / "go" / "dhcp.sock"
    daemon = Process(None, tmp_path / "go.log", go_plugins.directory / "dhcp", "daemon", "-socketpath", socket)
    wait_for(socket.exists, "the Go daemon")
    yield socket
    daemon.stop()


def mixed_directory(directory: Path, go_plugins: "GoPlugins", *, pycni_plugin: str) -> Path:
    """Create a plugin directory with one plugin of pycni and the other one of Go."""
    installation.install(directory, [pycni_plugin], directory.with_name("state"), python=True)
    for plugin in {"bridge", "dhcp"} - {pycni_plugin}:
        (directory / plugin).symlink_to(go_plugins.directory / plugin)
    return directory


def call(directory: Path, socket: Path, container: Container, command: str, **extra: Any) -> Any:
    """Call the bridge plugin in the directory and return its result."""
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


def ipam_part(result: dict[str, Any]) -> tuple[Any, Any]:
    return result["ips"], result["routes"]


def test_result_is_the_same_as_the_go_plugins(
    lan: Lan, lease_daemon: LeaseDaemon, go_plugins: "GoPlugins", go_daemon: Path, container: Container
) -> None:
    lan.isc()
    go_result = call(go_plugins.directory, go_daemon, container, "ADD")
    call(go_plugins.directory, go_daemon, container, "DEL", prevResult=go_result)
    runner = PluginRunner(
        "bridge", container, bridge=BRIDGE, ipam={"type": "dhcp", "daemonSocketPath": str(lease_daemon.socket)}
    )
    assert ipam_part(runner.add()) == ipam_part(go_result)


def test_go_bridge_works_with_pycni_dhcp(
    lan: Lan, lease_daemon: LeaseDaemon, go_plugins: "GoPlugins", container: Container, tmp_path: Path
) -> None:
    lan.isc()
    directory = mixed_directory(tmp_path / "bin", go_plugins, pycni_plugin="dhcp")
    result = call(directory, lease_daemon.socket, container, "ADD")
    call(directory, lease_daemon.socket, container, "CHECK", prevResult=result)
    call(directory, lease_daemon.socket, container, "DEL", prevResult=result)
    assert lease_daemon.records() == []


def test_pycni_bridge_del_releases_a_lease_of_go_dhcp(
    lan: Lan, go_plugins: "GoPlugins", go_daemon: Path, container: Container, tmp_path: Path
) -> None:
    lan.isc()
    directory = mixed_directory(tmp_path / "bin", go_plugins, pycni_plugin="bridge")
    result = call(directory, go_daemon, container, "ADD")
    call(directory, go_daemon, container, "DEL", prevResult=result)
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")
