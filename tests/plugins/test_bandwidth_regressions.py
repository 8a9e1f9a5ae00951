"""bandwidth: regression tests, mostly for faults of the Go plugin (docs/reference/plugins.md#bandwidth)."""

import os
from typing import Any

import pytest

from pycni.kernel.link import shaping
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from pycni.testing.snapshot import of_host

LIMITS = {"ingressRate": 80_000, "ingressBurst": 80_000, "egressRate": 160_000, "egressBurst": 160_000}


def bandwidth_runner(
    container: Container, ifname: str = "eth0", *, runner_class: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """Return a runner for bandwidth after the ADD of bridge."""
    name = config.get("name", "test")
    bridge_result = PluginRunner("bridge", container, ifname=ifname, bridge="br0", name=name).add()
    return runner_class("bandwidth", container, ifname=ifname, prevResult=bridge_result, **{**LIMITS, **config})


def ifbs(host: Host) -> list[str]:
    return [link["ifname"] for link in host.json("ip -j link show type ifb")]


@pytest.mark.direct
def test_add_that_cannot_redirect_leaves_no_qdisc(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ingress qdisc is created before the filter. Where it stayed, the next ADD failed with "file exists"."""
    runner = bandwidth_runner(container)
    before = of_host(container.host)
    with monkeypatch.context() as patch, pytest.raises(CniError, match="cannot redirect"):
        patch.setattr(shaping, "_REDIRECT", 99)
        runner.add()
    assert of_host(container.host) == before
    runner.add()
    runner.check()


def test_gc_removes_ifbs_without_a_valid_attachment(containers: list[Container]) -> None:
    host, runners = containers[0].host, [bandwidth_runner(container) for container in containers]
    for runner in runners:
        runner.add()
    alive, *_ = runners
    assert len(ifbs(host)) == 3
    alive.gc(alive)
    assert len(ifbs(host)) == 1
    alive.check()


def test_gc_keeps_ifbs_of_other_networks(containers: list[Container]) -> None:
    own, other = bandwidth_runner(containers[0]), bandwidth_runner(containers[1], name="other")
    own.add()
    other.add()
    own.gc()
    other.check()


def test_gc_removes_ifbs_leaked_by_the_go_plugin(containers: list[Container], go_runner: type[PluginRunner]) -> None:
    """The veth pair is deleted with the namespace, and no DEL is sent. The ifb does not name its network."""
    host, (leaked, alive, other) = containers[0].host, containers
    for container, name in ((leaked, "test"), (alive, "test"), (other, "other")):
        bandwidth_runner(container, runner_class=go_runner, name=name).add()
    host.run(f"ip link del {PluginRunner('bridge', leaked).owner.host_ifname}")
    PluginRunner("bandwidth", alive).gc(PluginRunner("bandwidth", alive))
    assert len(ifbs(host)) == 2
    unlabelled = PluginRunner("bandwidth", other, name="other")
    unlabelled.delete()
    assert len(ifbs(host)) == 1


def test_gc_keeps_ifbs_of_other_programs(host: Host, container: Container) -> None:
    host.run("ip link add ifb0 type ifb; ip link add bwpnotours type ifb; ip link add bwp0123456789ab type bridge")
    before = host.run("ip -br link")
    PluginRunner("bandwidth", container).gc()
    assert host.run("ip -br link") == before


def test_failed_add_deletes_its_ifb(host: Host, container: Container) -> None:
    runner = bandwidth_runner(container)
    host.run(f"tc qdisc add dev {runner.owner.host_ifname} clsact")  # takes the place of the ingress qdisc
    before = of_host(host)
    with pytest.raises(CniError, match="cannot redirect what veth.* receives to bwp.*file exists"):
        runner.add()
    assert of_host(host) == before
    host.run(f"tc qdisc del dev {runner.owner.host_ifname} clsact")
    runner.add()


def test_del_succeeds_with_an_invalid_configuration(host: Host, container: Container) -> None:
    runner = bandwidth_runner(container)
    runner.add()
    runner.config |= {"ingressRate": "fast", "egressBurst": 0, "runtimeConfig": {"bandwidth": 7}, "prevResult": 3}
    runner.forget()
    runner.delete()
    assert ifbs(host) == []
    assert "tbf" not in host.run("tc qdisc show")


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/passwd"])
def test_del_succeeds_when_the_network_namespace_is_gone(host: Host, container: Container, netns: str) -> None:
    runner = bandwidth_runner(container)
    runner.add()
    host.run(f"ip link del {runner.owner.host_ifname}")  # as the kernel does when it deletes the namespace
    runner.netns = netns
    runner.forget()
    runner.delete()
    assert ifbs(host) == []
    runner.delete()


def test_del_changes_nothing_in_a_namespace_of_another_container(containers: list[Container]) -> None:
    deleted, other = bandwidth_runner(containers[0]), bandwidth_runner(containers[1])
    deleted.add()
    other.add()
    deleted.netns = other.netns
    deleted.delete()
    other.check()
    assert len(ifbs(deleted.container.host)) == 1


@pytest.mark.parametrize("config", [{}, LIMITS])
@pytest.mark.parametrize("command", ["add", "check"])
def test_missing_prev_result_is_an_error(container: Container, config: dict[str, Any], command: str) -> None:
    """Go: panic."""
    with pytest.raises(CniError, match="must be called as chained plugin") as caught:
        getattr(PluginRunner("bandwidth", container, **config), command)()
    assert caught.value.code == 7


def test_each_interface_of_a_container_has_its_own_limits(host: Host, container: Container) -> None:
    first, second = bandwidth_runner(container), bandwidth_runner(container, "net1")
    first.add()
    second.add()
    assert len(ifbs(host)) == 2
    first.check()
    second.check()
    second.delete()
    first.check()
    first.delete()
    assert ifbs(host) == []


def test_del_keeps_the_ifb_of_the_go_plugin_for_another_interface(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    """Go: the name of the ifb is the same for every interface of a container."""
    by_go, by_pycni = bandwidth_runner(container, runner_class=go_runner), bandwidth_runner(container, "net1")
    result = by_go.add()
    by_pycni.add()
    by_pycni.delete()
    first = PluginRunner("bandwidth", container, **{**LIMITS, "prevResult": result})
    first.check()
    first.delete()
    assert ifbs(host) == []


def test_repeated_add_is_refused_and_changes_nothing(host: Host, container: Container) -> None:
    """Also after the ADD of the Go plugin."""
    runner = bandwidth_runner(container)
    runner.add()
    before = of_host(host)
    with pytest.raises(CniError, match="has a qdisc tbf already: file exists; .* needs a DEL before the next ADD"):
        PluginRunner("bandwidth", container, prevResult=runner.config["prevResult"], **LIMITS).add()
    assert of_host(host) == before
    runner.check()


def test_del_removes_the_ifb_of_a_failed_add_of_the_go_plugin(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    runner = bandwidth_runner(container, runner_class=go_runner)
    host.run(f"tc qdisc add dev {runner.owner.host_ifname} clsact")
    with pytest.raises(CniError):
        runner.add()
    assert len(ifbs(host)) == 1
    PluginRunner("bandwidth", container).delete()
    assert ifbs(host) == []
    assert "clsact" in host.run("tc qdisc show")  # was not created by a plugin


def test_own_namespace_of_the_host_is_refused(container: Container) -> None:
    runner = bandwidth_runner(container)
    runner.netns = f"/proc/{os.getpid()}/ns/net"
    with pytest.raises(CniError, match="should not be the same"):
        runner.add()
    assert ifbs(container.host) == []
