"""bandwidth: the stories behind what goes wrong elsewhere, each told once."""

import os
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from pycni.testing.snapshot import of_host

LIMITS = {"ingressRate": 80_000, "ingressBurst": 80_000, "egressRate": 160_000, "egressBurst": 160_000}


def limited(
    container: Container, ifname: str = "eth0", *, by: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """A runtime for a bridged container, before the ADD of bandwidth."""
    name = config.get("name", "test")
    made = PluginRunner("bridge", container, ifname=ifname, bridge="br0", name=name).add()
    return by("bandwidth", container, ifname=ifname, prevResult=made, **{**LIMITS, **config})


def ifbs(host: Host) -> list[str]:
    return [link["ifname"] for link in host.json("ip -j link show type ifb")]


def test_r01_gc_removes_the_ifbs_of_attachments_that_are_no_more(containers: list[Container]) -> None:
    host, runtimes = containers[0].host, [limited(container) for container in containers]
    for runtime in runtimes:
        runtime.add()
    alive, *_ = runtimes
    assert len(ifbs(host)) == 3
    alive.gc(alive)
    assert len(ifbs(host)) == 1
    alive.check()


def test_r01_gc_leaves_other_networks_alone(containers: list[Container]) -> None:
    mine, other = limited(containers[0]), limited(containers[1], name="other")
    mine.add()
    other.add()
    mine.gc()
    other.check()


def test_r01_gc_removes_what_the_go_plugin_leaked(containers: list[Container], go_runner: type[PluginRunner]) -> None:
    """The namespace goes, and the cable with it; nobody sends DEL. Of whose network the ifb was is not known."""
    host, (leaked, alive, other) = containers[0].host, containers
    for container, name in ((leaked, "test"), (alive, "test"), (other, "other")):
        limited(container, by=go_runner, name=name).add()
    host.run(f"ip link del {PluginRunner('bridge', leaked).owner.host_ifname}")
    PluginRunner("bandwidth", alive).gc(PluginRunner("bandwidth", alive))
    assert len(ifbs(host)) == 2
    limited_again = PluginRunner("bandwidth", other, name="other")
    limited_again.delete()
    assert len(ifbs(host)) == 1


def test_r01_gc_leaves_strangers_ifbs_alone(host: Host, container: Container) -> None:
    host.run("ip link add ifb0 type ifb; ip link add bwpnotours type ifb; ip link add bwp0123456789ab type bridge")
    before = host.run("ip -br link")
    PluginRunner("bandwidth", container).gc()
    assert host.run("ip -br link") == before


def test_r03_a_failed_add_takes_its_ifb_back(host: Host, container: Container) -> None:
    runtime = limited(container)
    host.run(f"tc qdisc add dev {runtime.owner.host_ifname} clsact")  # where the redirection should go
    before = of_host(host)
    with pytest.raises(CniError, match="cannot redirect what veth.* receives to bwp.*file exists"):
        runtime.add()
    assert of_host(host) == before
    host.run(f"tc qdisc del dev {runtime.owner.host_ifname} clsact")
    runtime.add()


def test_r05_a_configuration_that_has_become_wrong_does_not_block_delete(host: Host, container: Container) -> None:
    runtime = limited(container)
    runtime.add()
    runtime.config |= {"ingressRate": "fast", "egressBurst": 0, "runtimeConfig": {"bandwidth": 7}, "prevResult": 3}
    runtime.forget()
    runtime.delete()
    assert ifbs(host) == []
    assert "tbf" not in host.run("tc qdisc show")


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/passwd"])
def test_r09_delete_works_once_the_namespace_is_gone(host: Host, container: Container, netns: str) -> None:
    runtime = limited(container)
    runtime.add()
    host.run(f"ip link del {runtime.owner.host_ifname}")  # as the kernel does with the namespace
    runtime.netns = netns
    runtime.forget()
    runtime.delete()
    assert ifbs(host) == []
    runtime.delete()


def test_r10_a_namespace_that_is_somebody_elses_by_now_is_left_alone(containers: list[Container]) -> None:
    gone, other = limited(containers[0]), limited(containers[1])
    gone.add()
    other.add()
    gone.netns = other.netns
    gone.delete()
    other.check()
    assert len(ifbs(gone.container.host)) == 1


@pytest.mark.parametrize("config", [{}, LIMITS])
@pytest.mark.parametrize("command", ["add", "check"])
def test_r30_without_a_previous_result_there_is_an_error_and_no_crash(
    container: Container, config: dict[str, Any], command: str
) -> None:
    with pytest.raises(CniError, match="must be called as chained plugin") as caught:
        getattr(PluginRunner("bandwidth", container, **config), command)()
    assert caught.value.code == 7


def test_r43_two_interfaces_of_a_container_on_one_network_are_limited_each(host: Host, container: Container) -> None:
    first, second = limited(container), limited(container, "net1")
    first.add()
    second.add()
    assert len(ifbs(host)) == 2
    first.check()
    second.check()
    second.delete()
    first.check()
    first.delete()
    assert ifbs(host) == []


def test_r43_delete_of_one_interface_leaves_the_go_plugins_ifb_of_the_other(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    """The Go plugin's name is the same for every interface of the container."""
    theirs, ours = limited(container, by=go_runner), limited(container, "net1")
    result = theirs.add()
    ours.add()
    ours.delete()
    kept = PluginRunner("bandwidth", container, **{**LIMITS, "prevResult": result})
    kept.check()
    kept.delete()
    assert ifbs(host) == []


def test_an_add_that_comes_twice_is_refused_and_changes_nothing(host: Host, container: Container) -> None:
    """BW-09: after the ADD of the Go plugin, too."""
    runtime = limited(container)
    runtime.add()
    before = of_host(host)
    with pytest.raises(CniError, match="has a qdisc tbf already: file exists; .* needs a DEL before the next ADD"):
        PluginRunner("bandwidth", container, prevResult=runtime.config["prevResult"], **LIMITS).add()
    assert of_host(host) == before
    runtime.check()


def test_del_removes_what_a_failed_add_of_the_go_plugin_left(
    host: Host, container: Container, go_runner: type[PluginRunner]
) -> None:
    runtime = limited(container, by=go_runner)
    host.run(f"tc qdisc add dev {runtime.owner.host_ifname} clsact")
    with pytest.raises(CniError):
        runtime.add()
    assert len(ifbs(host)) == 1
    PluginRunner("bandwidth", container).delete()
    assert ifbs(host) == []
    assert "clsact" in host.run("tc qdisc show")  # is not ours


def test_r02_the_hosts_own_namespace_is_refused(container: Container) -> None:
    runtime = limited(container)
    runtime.netns = f"/proc/{os.getpid()}/ns/net"
    with pytest.raises(CniError, match="should not be the same"):
        runtime.add()
    assert ifbs(container.host) == []
