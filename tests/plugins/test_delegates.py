"""Delegation between pycni and Go: Go's IPAM plugin under pycni's bridge, and pycni's under Go's bridge."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner

from .conftest import GoPlugins


def network(state: Path) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(state / "networks"), "subnet": "10.1.0.0/24"}
    return {"cniVersion": "1.0.0", "name": "mixed", "type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam}


def test_bridge_delegates_to_the_go_ipam_plugin(container: Container, go_plugins: GoPlugins) -> None:
    (container.host.state / "bin").mkdir(parents=True)
    shutil.copy(go_plugins.directory / "host-local", container.host.state / "bin")
    runner = PluginRunner("bridge", container, **network(container.host.state))
    result = runner.add()
    assert result["ips"] == [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2}]
    runner.check()
    reservation = container.host.state / "networks" / "mixed" / "10.1.0.2"
    assert reservation.read_bytes() == f"{container.id}\r\neth0".encode()
    runner.delete()
    assert not reservation.exists()


def test_go_bridge_delegates_to_pycnis_ipam_plugin(
    container: Container, go_plugins: GoPlugins, bin_directory: Path
) -> None:
    config = network(container.host.state)
    container.host.state.mkdir(parents=True, exist_ok=True)

    def go_bridge(command: str, **members: object) -> Any:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.id,
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(bin_directory),
        }
        stdin = json.dumps({**config, **members}).encode()
        done = subprocess.run([go_plugins.directory / "bridge"], input=stdin, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout or "null")

    result = go_bridge("ADD")
    assert result["ips"][0]["address"] == "10.1.0.2/24"
    assert container.pings("10.1.0.1")
    go_bridge("CHECK", prevResult=result)
    go_bridge("DEL", prevResult=result)
    assert not (container.host.state / "networks" / "mixed" / "10.1.0.2").exists()


def test_check_and_del_accept_an_add_of_the_go_bridge(container: Container, go_runner: type[PluginRunner]) -> None:
    """Migration: the executable is replaced while the container runs."""
    config = network(container.host.state)
    runner = PluginRunner("bridge", container, **config)
    runner.result = go_runner("bridge", container, **config).add()
    runner.check()
    runner.delete()
    assert "eth0" not in container.run("ip -br link")
    assert "veth" not in container.host.run("ip -br link")
    assert not (container.host.state / "networks" / "mixed" / "10.1.0.2").exists()


def test_executable_on_cni_path_takes_precedence_over_a_registered_plugin(container: Container) -> None:
    binary = container.host.state / "bin" / "static"
    binary.parent.mkdir(parents=True)
    binary.write_text("""#!/bin/sh
cat > /dev/null
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.7/24"}]}'; true
""")
    binary.chmod(0o755)
    result = PluginRunner("bridge", container, ipam={"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}).add()
    assert result["ips"][0]["address"] == "10.7.0.7/24"


def test_error_for_an_unknown_ipam_plugin_names_it_and_the_searched_path(container: Container) -> None:
    runner = PluginRunner("bridge", container, ipam={"type": "nonsense"})
    with pytest.raises(CniError, match=r'failed to find plugin "nonsense" in path \[.*/bin\]'):
        runner.add()
    assert "eth0" not in container.run("ip -br link")
