"""Lives that change hands between the Go plugins and ours: what one has made, the other checks and removes.

The older Go plugins end at version 1.0.0 and masquerade by iptables alone, whatever the configuration says.
"""

from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from pycni.testing.snapshot import of_host, of_namespace

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


def runtime(
    kind: type[PluginRunner], plugin: str, container: Container, ifname: str = "eth0", **config: Any
) -> PluginRunner:
    """A runtime of either kind for a masqueraded attachment.

    A second interface has no default routes, and with ptp, where Go's fails with two in one subnet, another subnet.
    """
    second = OTHER_SUBNETS if plugin == "ptp" else {**DUAL, "routes": []}
    ipam = DUAL if ifname == "eth0" else second
    options = {"cniVersion": "1.0.0", **CONFIG[plugin], "ipam": ipam, **config}
    return kind(plugin, container, ifname=ifname, **options)


def settled(kind: type[PluginRunner], plugin: str, container: Container) -> set[str]:
    """The host after a life has made what is shared: the bridge, the tables of the firewall."""
    by_iptables, by_nftables = {"ipMasqBackend": "iptables"}, {"ipMasqBackend": "nftables"}
    for each, backend in ((kind, {}), (kind, by_nftables), (PluginRunner, by_iptables)):
        first = runtime(each, plugin, container, **backend)
        first.add()
        handed_over(first, runtime(PluginRunner, plugin, container, **backend)).delete()
    return of_host(container.host)


def handed_over(giver: PluginRunner, taker: PluginRunner) -> PluginRunner:
    """The taker with what the giver's runtime remembers."""
    taker.result = giver.result
    return taker


@both_plugins
@by_backend
def test_a_go_add_is_checked_and_removed_by_ours(
    container: Container, go_runner: type[PluginRunner], plugin: str, backend: dict[str, str], outside: Container
) -> None:
    before, inside = settled(go_runner, plugin, container), of_namespace(container)
    theirs = runtime(go_runner, plugin, container, **backend)
    theirs.add()
    assert container.pings("192.0.2.2")
    ours = handed_over(theirs, runtime(PluginRunner, plugin, container, **backend))
    ours.check()
    ours.delete()
    assert of_host(container.host) == before
    assert of_namespace(container) == inside
    ours.delete()


@both_plugins
def test_our_add_is_checked_and_removed_by_go(
    container: Container, go_runner: type[PluginRunner], plugin: str, outside: Container
) -> None:
    before, inside = settled(go_runner, plugin, container), of_namespace(container)
    ours = runtime(PluginRunner, plugin, container, ipMasqBackend="iptables")
    ours.add()
    assert container.pings("192.0.2.2")
    theirs = handed_over(ours, runtime(go_runner, plugin, container, ipMasqBackend="iptables"))
    theirs.check()
    theirs.delete()
    assert of_host(container.host) == before
    assert of_namespace(container) == inside


@both_plugins
@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_r09_what_go_made_goes_without_the_namespace_and_without_a_result(
    container: Container, go_runner: type[PluginRunner], plugin: str, netns: str
) -> None:
    before = settled(go_runner, plugin, container)
    runtime(go_runner, plugin, container).add()
    ours = runtime(PluginRunner, plugin, container)
    ours.netns = netns
    ours.delete()
    # Without the namespace nobody can tell which cable on the host it was; the kernel removes it with the namespace.
    left = of_host(container.host) - before
    assert [line for line in left if not line.startswith(("link veth", "address veth", "route"))] == []


@both_plugins
def test_gc_removes_what_go_has_in_iptables_of_containers_that_are_gone(
    containers: list[Container], go_runner: type[PluginRunner], plugin: str
) -> None:
    alive, dead, _ = (runtime(go_runner, plugin, each) for each in containers)
    alive.add()
    dead.add()
    ours = handed_over(alive, runtime(PluginRunner, plugin, containers[0], cniVersion="1.1.0"))
    ours.gc(ours)
    host = containers[0].host
    assert dead.owner.container_name("CNI-", 28) not in host.run("iptables-save -t nat; ip6tables-save -t nat")
    ours.check()


@both_plugins
def test_r07_of_two_interfaces_by_go_ours_removes_one(
    container: Container, go_runner: type[PluginRunner], plugin: str
) -> None:
    first, second = runtime(go_runner, plugin, container), runtime(go_runner, plugin, container, "eth1")
    first.add()
    second.add()
    handed_over(second, runtime(PluginRunner, plugin, container, "eth1")).delete()
    ours = handed_over(first, runtime(PluginRunner, plugin, container))
    ours.check()
    ours.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_the_second_interface_may_be_the_other_sides(container: Container, go_runner: type[PluginRunner]) -> None:
    theirs = runtime(go_runner, "ptp", container)
    ours = runtime(PluginRunner, "ptp", container, "eth1", ipMasqBackend="iptables")
    theirs.add()
    ours.add()
    handed_over(theirs, runtime(PluginRunner, "ptp", container)).check()
    ours.check()
    ours.delete()
    handed_over(theirs, runtime(PluginRunner, "ptp", container)).check()
    theirs.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_where_nftables_is_named_what_is_in_iptables_does_not_count(
    container: Container, go_runner: type[PluginRunner]
) -> None:
    theirs = runtime(go_runner, "ptp", container, ipMasqBackend="iptables")
    theirs.add()
    ours = handed_over(theirs, runtime(PluginRunner, "ptp", container, ipMasqBackend="nftables"))
    with pytest.raises(CniError, match="is missing in nftables"):
        ours.check()
    ours.delete()
    assert "CNI-" not in container.host.run("iptables-save -t nat; ip6tables-save -t nat")


def test_both_make_the_same_rules(containers: list[Container], go_runner: type[PluginRunner], host: Host) -> None:
    theirs = runtime(go_runner, "bridge", containers[0])
    theirs.add()
    made = _rules(host, theirs)
    theirs.delete()
    ours = runtime(PluginRunner, "bridge", containers[0], ipMasqBackend="iptables", ipam=_fixed(theirs))
    ours.add()
    assert _rules(host, ours) == made


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
def test_both_put_ports_into_the_same_vlans(
    container: Container, go_runner: type[PluginRunner], host: Host, options: dict[str, Any]
) -> None:
    found = []
    for kind in (go_runner, PluginRunner):
        attachment = runtime(kind, "bridge", container, ipMasq=False, **options)
        attachment.add()
        found.append(sorted(str(port["vlans"]) for port in host.json("bridge -j vlan")))
        attachment.delete()
        host.run("ip link del br0 && for gateway in br0.5 br0.7; do ip link del $gateway; done 2>&1 || true")
    assert found[0] == found[1]


def _fixed(theirs: PluginRunner) -> dict[str, Any]:
    addresses = [{"address": ip["address"], "gateway": ip["gateway"]} for ip in (theirs.result or {})["ips"]]
    return {"type": "static", "addresses": addresses}


def _rules(host: Host, of: PluginRunner) -> list[str]:
    lines = host.run("iptables-save -t nat; ip6tables-save -t nat").splitlines()
    rules = [line for line in lines if line.startswith(("-A", ":CNI-"))]
    assert len(rules) == 8
    assert all(of.owner.container_name("CNI-", 28) in rule for rule in rules)
    return rules
