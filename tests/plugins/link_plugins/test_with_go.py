"""The Go plugins and pycni handle each other's attachments: macvlan, vlan and ipvlan."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.testing import Container, PluginRunner
from pycni.testing.snapshot import of_namespace
from tests.plugins.conftest import host_without_owner_index

pytestmark = pytest.mark.exhaustive
CreateRunner = Callable[..., PluginRunner]
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    # With gateways: without them, Go's CHECK does not find the routes of Go's ADD.
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}, {"dst": "fd00:9::/64", "gw": "fd00:1::1"}],
}


def both(
    attachment: CreateRunner, go_runner: type[PluginRunner], plugin: str, **config: Any
) -> tuple[PluginRunner, PluginRunner]:
    """Return runners of the Go plugin and of pycni for the same attachment."""
    by_pycni = attachment(plugin, ipam=DUAL, cniVersion="1.0.0", **config)
    return go_runner(plugin, by_pycni.container, **by_pycni.config), by_pycni


def test_check_and_del_accept_an_add_of_the_go_plugin(
    attachment: CreateRunner, go_runner: type[PluginRunner], plugin_with_master: str, container: Container
) -> None:
    by_go, by_pycni = both(attachment, go_runner, plugin_with_master)
    by_go.add()
    by_go.delete()
    host, inside = host_without_owner_index(container.host), of_namespace(container)
    by_pycni.result = by_go.add()
    assert container.pings("10.1.0.1")
    by_pycni.check()
    by_pycni.delete()
    by_pycni.delete()
    assert host_without_owner_index(container.host) == host
    assert of_namespace(container) == inside


def test_go_plugin_checks_and_deletes_an_add_of_pycni(
    attachment: CreateRunner, go_runner: type[PluginRunner], plugin_with_master: str, container: Container
) -> None:
    by_go, by_pycni = both(attachment, go_runner, plugin_with_master)
    by_pycni.add()
    by_pycni.delete()
    host, inside = host_without_owner_index(container.host), of_namespace(container)
    by_go.result = by_pycni.add()
    assert container.pings("10.1.0.1")
    by_go.check()
    by_go.delete()
    assert host_without_owner_index(container.host) == host
    assert of_namespace(container) == inside


def test_result_is_the_same_as_the_go_plugins(
    attachment: CreateRunner, go_runner: type[PluginRunner], plugin_with_master: str, containers: list[Container]
) -> None:
    """Except for MAC addresses, which the kernel chooses."""
    by_go, by_pycni = both(attachment, go_runner, plugin_with_master)
    results = []
    for runner in (by_go, by_pycni):
        result = runner.add()
        runner.delete()
        results.append(result | {"interfaces": [interface | {"mac": ""} for interface in result["interfaces"]]})
        results[-1]["ips"] = [ip | {"address": ip["address"].partition("/")[2]} for ip in result["ips"]]
    first, second = results
    assert first | {"dns": {}} == second | {"dns": {}}


def test_one_chain_can_contain_plugins_of_both(
    attachment: CreateRunner, go_runner: type[PluginRunner], container: Container
) -> None:
    _, by_pycni = both(attachment, go_runner, "macvlan")
    data_dir = str(container.host.state / "tuning")
    by_go = go_runner("tuning", container, previous=by_pycni.add(), mtu=1280, cniVersion="1.0.0", dataDir=data_dir)
    result = by_go.add()
    by_pycni.result = result
    assert "mtu 1280" in container.run("ip link show eth0")
    by_pycni.check()
    by_go.check()
    by_go.delete()
    by_pycni.delete()
    assert "eth0" not in container.run("ip -br link")
