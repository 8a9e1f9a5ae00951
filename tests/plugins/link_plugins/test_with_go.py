"""Lives that change hands between Debian's Go plugins and ours: what one has made, the other checks and removes."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.testing import Container, PluginRunner
from pycni.testing.snapshot import of_host, of_namespace

pytestmark = pytest.mark.exhaustive
Attached = Callable[..., PluginRunner]
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    # With their gateways: without, Go's CHECK does not find the routes that Go's ADD has made.
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}, {"dst": "fd00:9::/64", "gw": "fd00:1::1"}],
}


def both(attachment: Attached, go: type[PluginRunner], plugin: str, **config: Any) -> tuple[PluginRunner, PluginRunner]:
    """The runtimes of the Go plugin and of ours for the same attachment."""
    ours = attachment(plugin, ipam=DUAL, cniVersion="1.0.0", **config)
    return go(plugin, ours.container, **ours.config), ours


def test_a_go_add_is_checked_and_removed_by_ours(
    attachment: Attached, go: type[PluginRunner], on_master: str, container: Container
) -> None:
    theirs, ours = both(attachment, go, on_master)
    theirs.add()
    theirs.delete()
    host, inside = of_host(container.host), of_namespace(container)
    ours.result = theirs.add()
    assert container.pings("10.1.0.1")
    ours.check()
    ours.delete()
    ours.delete()
    assert of_host(container.host) == host
    assert of_namespace(container) == inside


def test_our_add_is_checked_and_removed_by_go(
    attachment: Attached, go: type[PluginRunner], on_master: str, container: Container
) -> None:
    theirs, ours = both(attachment, go, on_master)
    ours.add()
    ours.delete()
    host, inside = of_host(container.host), of_namespace(container)
    theirs.result = ours.add()
    assert container.pings("10.1.0.1")
    theirs.check()
    theirs.delete()
    assert of_host(container.host) == host
    assert of_namespace(container) == inside


def test_both_make_the_same_result(
    attachment: Attached, go: type[PluginRunner], on_master: str, containers: list[Container]
) -> None:
    """But for hardware addresses, which the kernel chooses."""
    theirs, ours = both(attachment, go, on_master)
    results = []
    for runtime in (theirs, ours):
        result = runtime.add()
        runtime.delete()
        results.append(result | {"interfaces": [made | {"mac": ""} for made in result["interfaces"]]})
        results[-1]["ips"] = [ip | {"address": ip["address"].partition("/")[2]} for ip in result["ips"]]
    first, second = results
    assert first | {"dns": {}} == second | {"dns": {}}


def test_one_chain_may_have_plugins_of_both(attachment: Attached, go: type[PluginRunner], container: Container) -> None:
    _, ours = both(attachment, go, "macvlan")
    kept = str(container.host.state / "tuning")
    theirs = go("tuning", container, previous=ours.add(), mtu=1280, cniVersion="1.0.0", dataDir=kept)
    result = theirs.add()
    ours.result = result
    assert "mtu 1280" in container.run("ip link show eth0")
    ours.check()
    theirs.check()
    theirs.delete()
    ours.delete()
    assert "eth0" not in container.run("ip -br link")
