"""The Go plugins and pycni handle each other's attachments: bridge and ptp.

Go 1.1 supports CNI versions up to 1.0.0, and masquerades with iptables whatever the configuration says.
"""

from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from pycni.testing.snapshot import of_namespace

from .conftest import host_without_owner_index

DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
OTHER_SUBNETS = {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]}
CONFIG: dict[str, dict[str, Any]] = {
    "bridge": {"bridge": "br0", "isGateway": True, "ipMasq": True},
    "ptp": {"ipMasq": True},
}

pytestmark = [pytest.mark.usefixtures("iptables"), pytest.mark.exhaustive]
by_backend = pytest.mark.parametrize(
    "backend",
    [{}, {"ipMasqBackend": "iptables"}, pytest.param({"ipMasqBackend": "nftables"}, marks=pytest.mark.newer_go)],
)
both_plugins = pytest.mark.parametrize("plugin", ["bridge", "ptp"])


def runner(
    runner_class: type[PluginRunner], plugin: str, container: Container, ifname: str = "eth0", **config: Any
) -> PluginRunner:
    """Return a runner of either implementation for a masqueraded attachment.

    A second interface has no default routes. With ptp it has another subnet, since Go's ptp fails with two interfaces
    in one subnet.
    """
    second = OTHER_SUBNETS if plugin == "ptp" else {**DUAL, "routes": []}
    ipam = DUAL if ifname == "eth0" else second
    options = {"cniVersion": "1.0.0", **CONFIG[plugin], "ipam": ipam, **config}
    return runner_class(plugin, container, ifname=ifname, **options)


def host_with_shared_state(runner_class: type[PluginRunner], plugin: str, container: Container) -> set[str]:
    """Create the shared state, the bridge and the firewall tables, with ADD and DEL; return the host's snapshot."""
    by_iptables, by_nftables = {"ipMasqBackend": "iptables"}, {"ipMasqBackend": "nftables"}
    for each, backend in ((runner_class, {}), (runner_class, by_nftables), (PluginRunner, by_iptables)):
        first = runner(each, plugin, container, **backend)
        first.add()
        with_result_of(first, runner(PluginRunner, plugin, container, **backend)).delete()
    return host_without_owner_index(container.host)


def with_result_of(source: PluginRunner, target: PluginRunner) -> PluginRunner:
    """Give `target` the result of `source`; return `target`."""
    target.result = source.result
    return target


@both_plugins
@by_backend
def test_check_and_del_accept_an_add_of_the_go_plugin(
    container: Container, go_runner: type[PluginRunner], plugin: str, backend: dict[str, str], outside: Container
) -> None:
    before, inside = host_with_shared_state(go_runner, plugin, container), of_namespace(container)
    by_go = runner(go_runner, plugin, container, **backend)
    by_go.add()
    assert container.pings("192.0.2.2")
    by_pycni = with_result_of(by_go, runner(PluginRunner, plugin, container, **backend))
    by_pycni.check()
    by_pycni.delete()
    assert host_without_owner_index(container.host) == before
    assert of_namespace(container) == inside
    by_pycni.delete()


@both_plugins
def test_go_plugin_checks_and_deletes_an_add_of_pycni(
    container: Container, go_runner: type[PluginRunner], plugin: str, outside: Container
) -> None:
    before, inside = host_with_shared_state(go_runner, plugin, container), of_namespace(container)
    by_pycni = runner(PluginRunner, plugin, container, ipMasqBackend="iptables")
    by_pycni.add()
    assert container.pings("192.0.2.2")
    by_go = with_result_of(by_pycni, runner(go_runner, plugin, container, ipMasqBackend="iptables"))
    by_go.check()
    by_go.delete()
    assert host_without_owner_index(container.host) == before
    assert of_namespace(container) == inside


@both_plugins
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_del_removes_rules_of_the_go_plugin_without_namespace_and_prev_result(
    container: Container, go_runner: type[PluginRunner], plugin: str, netns: str
) -> None:
    before = host_with_shared_state(go_runner, plugin, container)
    runner(go_runner, plugin, container).add()
    by_pycni = runner(PluginRunner, plugin, container)
    by_pycni.netns = netns
    by_pycni.delete()
    # Without the namespace, the host's end of the veth pair is unknown. The kernel deletes it with the namespace.
    left = host_without_owner_index(container.host) - before
    assert [line for line in left if not line.startswith(("link veth", "address veth", "route"))] == []


@both_plugins
def test_gc_removes_iptables_rules_of_the_go_plugin_without_a_valid_attachment(
    containers: list[Container], go_runner: type[PluginRunner], plugin: str
) -> None:
    alive, dead, _ = (runner(go_runner, plugin, each) for each in containers)
    alive.add()
    dead.add()
    by_pycni = with_result_of(alive, runner(PluginRunner, plugin, containers[0], cniVersion="1.1.0"))
    by_pycni.gc(by_pycni)
    host = containers[0].host
    assert dead.owner.container_name("CNI-", 28) not in host.run("iptables-save -t nat; ip6tables-save -t nat")
    by_pycni.check()


@both_plugins
def test_del_of_one_of_two_interfaces_of_the_go_plugin_keeps_the_other(
    container: Container, go_runner: type[PluginRunner], plugin: str
) -> None:
    first, second = runner(go_runner, plugin, container), runner(go_runner, plugin, container, "eth1")
    first.add()
    second.add()
    with_result_of(second, runner(PluginRunner, plugin, container, "eth1")).delete()
    by_pycni = with_result_of(first, runner(PluginRunner, plugin, container))
    by_pycni.check()
    by_pycni.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_two_interfaces_can_be_added_by_different_implementations(
    container: Container, go_runner: type[PluginRunner]
) -> None:
    by_go = runner(go_runner, "ptp", container)
    by_pycni = runner(PluginRunner, "ptp", container, "eth1", ipMasqBackend="iptables")
    by_go.add()
    by_pycni.add()
    with_result_of(by_go, runner(PluginRunner, "ptp", container)).check()
    by_pycni.check()
    by_pycni.delete()
    with_result_of(by_go, runner(PluginRunner, "ptp", container)).check()
    by_go.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_check_with_backend_nftables_ignores_rules_in_iptables(
    container: Container, go_runner: type[PluginRunner]
) -> None:
    by_go = runner(go_runner, "ptp", container, ipMasqBackend="iptables")
    by_go.add()
    by_pycni = with_result_of(by_go, runner(PluginRunner, "ptp", container, ipMasqBackend="nftables"))
    with pytest.raises(CniError, match="is missing in nftables"):
        by_pycni.check()
    by_pycni.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_rules_are_the_same_as_the_go_plugins(
    containers: list[Container], go_runner: type[PluginRunner], host: Host
) -> None:
    by_go = runner(go_runner, "bridge", containers[0])
    by_go.add()
    go_rules = _rules(host, by_go)
    by_go.delete()
    by_pycni = runner(PluginRunner, "bridge", containers[0], ipMasqBackend="iptables", ipam=_static_ipam(by_go))
    by_pycni.add()
    assert _rules(host, by_pycni) == go_rules


@pytest.mark.newer_go
@pytest.mark.needs_kernel("bridge VLAN filtering")
@pytest.mark.parametrize(
    "options",
    [
        {"vlan": 5},
        {"vlan": 5, "preserveDefaultVlan": True},
        {"vlan": 7, "vlanTrunk": [{"id": 5}, {"minID": 8, "maxID": 9}]},
        {"isGateway": False, "vlanTrunk": [{"id": 5}]},
        {"isGateway": False, "vlanTrunk": [{"id": 5}], "preserveDefaultVlan": True},
    ],
    ids=str,
)
def test_vlans_of_ports_are_the_same_as_the_go_plugins(
    container: Container, go_runner: type[PluginRunner], host: Host, options: dict[str, Any]
) -> None:
    found = []
    for runner_class in (go_runner, PluginRunner):
        attachment = runner(runner_class, "bridge", container, ipMasq=False, **options)
        attachment.add()
        found.append(sorted(str(port["vlans"]) for port in host.json("bridge -j vlan")))
        attachment.delete()
        host.run("ip link del br0 && for gateway in br0.5 br0.7; do ip link del $gateway; done 2>&1 || true")
    assert found[0] == found[1]


def _static_ipam(by_go: PluginRunner) -> dict[str, Any]:
    addresses = [{"address": ip["address"], "gateway": ip["gateway"]} for ip in (by_go.result or {})["ips"]]
    return {"type": "static", "addresses": addresses}


def _rules(host: Host, attachment: PluginRunner) -> list[str]:
    lines = host.run("iptables-save -t nat; ip6tables-save -t nat").splitlines()
    rules = [line for line in lines if line.startswith(("-A", ":CNI-"))]
    assert len(rules) == 8
    assert all(attachment.owner.container_name("CNI-", 28) in rule for rule in rules)
    return rules
