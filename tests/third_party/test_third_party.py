"""A third-party plugin is found, installed and called like pycni's own."""

import json
from pathlib import Path

import pytest

from pycni.protocol.errors import CniError
from pycni.runtime import NetworkConfig, Runtime, RuntimeConf
from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change

CONFLIST = {
    "cniVersion": "1.1.0",
    "name": "acme",
    "plugins": [{"type": "bridge", "bridge": "br0"}, {"type": "acme-mtu", "mtu": 1400}],
}


def mtu(container: Container) -> int:
    return int(container.json("ip -j link show eth0")[0]["mtu"])


def test_executable_is_called_in_a_chain(container: Container, acme_bin_directory: Path, tmp_path: Path) -> None:
    runtime = Runtime([str(acme_bin_directory)], cache_dir=tmp_path)
    network = NetworkConfig.parse(json.dumps(CONFLIST).encode())
    parameters = RuntimeConf(container.id, container.path)
    assert runtime.validate_network_list(network) == ()
    runtime.add_network_list(network, parameters)
    assert mtu(container) == 1400
    runtime.check_network_list(network, parameters)
    container.run("ip link set eth0 mtu 1300")
    with pytest.raises(CniError, match="eth0 should have mtu 1400, but has 1300"):
        runtime.check_network_list(network, parameters)
    runtime.delete_network_list(network, parameters)
    assert "eth0" not in container.run("ip -br link")


@pytest.fixture
def chained_runner(container: Container, acme_site: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRunner:
    """A runner of acme-mtu after bridge, in this process."""
    monkeypatch.syspath_prepend(acme_site)
    bridge_result = PluginRunner("bridge", container, bridge="br0").add()
    return PluginRunner("acme-mtu", container, mtu=1400, prevResult=bridge_result)


def test_failed_add_restores_the_mtu(chained_runner: PluginRunner) -> None:
    assert fail_at_every_change(lambda: _with_original_mtu(chained_runner)) == 1
    _with_original_mtu(chained_runner)


def _with_original_mtu(chained_runner: PluginRunner) -> PluginRunner:
    chained_runner.container.run("ip link set eth0 mtu 1500")
    return chained_runner


def test_add_check_and_del_leave_nothing_behind(chained_runner: PluginRunner) -> None:
    chained_runner.add()
    chained_runner.check()
    assert mtu(chained_runner.container) == 1400
    check_lifecycle(chained_runner)
