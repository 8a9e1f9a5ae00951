"""tuning: the stories behind what goes wrong elsewhere, each told once."""

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner

MAC = "02:00:5e:00:00:01"


def tuned(
    container: Container, ifname: str = "eth0", *, by: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """A runtime for a bridged container, before the ADD of tuning."""
    made = PluginRunner("bridge", container, ifname=ifname, bridge="br0").add()
    kept = str(data_dir(container))
    return by("tuning", container, ifname=ifname, **{"dataDir": kept, "prevResult": made, **config})


def data_dir(container: Container) -> Path:
    return container.host.state / "tuning"


def backups(container: Container) -> list[str]:
    return sorted(path.name for path in data_dir(container).glob("*"))


def link(container: Container, ifname: str = "eth0") -> dict[str, Any]:
    (found,) = container.json(f"ip -j link show dev {ifname}")
    return dict(found)


def test_r01_gc_removes_the_backups_of_attachments_that_are_no_more(containers: list[Container]) -> None:
    runtimes = [tuned(container, mtu=1400) for container in containers]
    for runtime in runtimes:
        runtime.add()
    alive, *_ = runtimes
    alive.gc(alive)
    assert backups(alive.container) == [f"{alive.container.id}_eth0.json"]
    alive.check()


def test_r01_gc_leaves_alone_what_may_be_another_networks(
    containers: list[Container], go_runner: type[PluginRunner]
) -> None:
    """The Go plugin's files do not say of which network they are, and all networks share the directory."""
    mine, other, theirs = containers
    tuned(other, mtu=1400, name="other").add()
    tuned(theirs, by=go_runner, mtu=1400).add()
    runtime = tuned(mine, mtu=1400)
    runtime.add()
    runtime.gc()
    assert backups(mine) == sorted([f"{other.id}_eth0.json", f"{theirs.id}_eth0.json"])


def test_r03_a_failed_add_undoes_sysctls_and_all(container: Container) -> None:
    runtime = tuned(container, sysctl={"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "1"}, mtu=10)
    before = container.run("cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/arp_filter")
    with pytest.raises(CniError, match="cannot set eth0 mtu 10"):
        runtime.add()
    assert container.run("cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/arp_filter") == before
    assert backups(container) == []


def test_r03_a_sysctl_that_is_refused_undoes_those_before_it(container: Container) -> None:
    runtime = tuned(container, sysctl={"net.core.somaxconn": "77", "net.ipv4.nonsense": "1"})
    before = container.run("cat /proc/sys/net/core/somaxconn")
    with pytest.raises(CniError, match="net/ipv4/nonsense"):
        runtime.add()
    assert container.run("cat /proc/sys/net/core/somaxconn") == before


@pytest.mark.parametrize(
    "damage",
    [
        {"sysctl": 7},
        {"mac": "zz"},
        {"mtu": "many"},
        {"args": {"cni": {"txQLen": -7}}},
        {"runtimeConfig": "none"},
        {"prevResult": {"ips": 3}},
    ],
)
def test_r05_a_configuration_that_has_become_wrong_does_not_block_delete(
    container: Container, damage: dict[str, Any]
) -> None:
    runtime = tuned(container, mac=MAC)
    before = link(container)
    runtime.add()
    runtime.config |= damage
    runtime.cni_args = "NONSENSE"
    runtime.forget()
    runtime.delete()
    assert link(container) == before
    assert backups(container) == []


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/passwd"])
def test_r09_the_backup_goes_although_the_namespace_is_gone(container: Container, netns: str) -> None:
    """The Go plugin keeps it (TU-11), and restores it to the next container of that id."""
    runtime = tuned(container, mtu=1400)
    runtime.add()
    runtime.netns = netns
    runtime.delete()
    assert backups(container) == []
    runtime.delete()


def test_r10_a_namespace_that_is_somebody_elses_by_now_is_left_alone(containers: list[Container]) -> None:
    gone, other = tuned(containers[0], mtu=1400), tuned(containers[1], mtu=1300)
    gone.add()
    other.add()
    gone.netns = other.netns
    gone.delete()
    other.check()
    assert backups(other.container) == [f"{other.container.id}_eth0.json"]


def test_r30_args_cni_sysctl_without_a_sysctl_works(container: Container) -> None:
    runtime = tuned(container, args={"cni": {"sysctl": {"net.core.somaxconn": "77"}}})
    runtime.add()
    assert container.run("cat /proc/sys/net/core/somaxconn").strip() == "77"


@pytest.mark.parametrize("config", [{}, {"mtu": 1400}])
def test_r30_without_a_previous_result_there_is_an_error(container: Container, config: dict[str, Any]) -> None:
    message = "Required prevResult missing: must be called as chained plugin"
    with pytest.raises(CniError, match=message) as caught:
        PluginRunner("tuning", container, **config).add()
    assert caught.value.code == 7


def test_r44_interface_names_may_have_dots(container: Container) -> None:
    """Substituted first, as the Go plugin does it, eth0.7 becomes a directory eth0 with a file 7 in it."""
    runtime = tuned(container, "eth0.7", sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"})
    runtime.add()
    assert container.run("cat /proc/sys/net/ipv4/conf/eth0.7/arp_filter").strip() == "1"
    runtime.check()


def test_r45_a_second_add_does_not_take_what_is_tuned_for_the_original(container: Container) -> None:
    runtime = tuned(container, mac=MAC, mtu=1400)
    before = link(container)
    first = runtime.add()
    again = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=1400)
    again.add()
    again.delete()
    assert link(container) == before


def test_r45_a_second_add_that_changes_more_keeps_more(container: Container) -> None:
    runtime = tuned(container, mtu=1400)
    before = link(container)
    first = runtime.add()
    again = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=1300)
    again.add()
    again.delete()
    assert link(container) == before


def test_r45_a_second_add_that_fails_keeps_the_backup_of_the_first(container: Container) -> None:
    runtime = tuned(container, mtu=1400)
    before = link(container)
    first = runtime.add()
    text = (data_dir(container) / backups(container)[0]).read_text()
    with pytest.raises(CniError, match="cannot set eth0 mtu 10"):
        PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=10).add()
    assert (data_dir(container) / backups(container)[0]).read_text() == text
    runtime.delete()
    assert link(container) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mtu": "many", "mac": 7}', "\xff\xfe"])
def test_a_damaged_backup_blocks_neither_delete_nor_add(container: Container, text: str) -> None:
    runtime = tuned(container, mtu=1400)
    runtime.add()
    (path,) = data_dir(container).iterdir()
    path.write_text(text, encoding="latin-1")
    again = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=runtime.result, mtu=1300)
    again.add()
    assert json.loads(path.read_text())["mtu"] == 1400
    path.write_text(text, encoding="latin-1")
    runtime.delete()
    assert backups(container) == []


def test_an_interface_that_refuses_its_former_state_does_not_block_delete(container: Container) -> None:
    runtime = tuned(container, mtu=1400, txQLen=7)
    runtime.add()
    (path,) = data_dir(container).iterdir()
    path.write_text(json.dumps({"mtu": 10, "txQLen": 1000}))
    runtime.delete()
    assert link(container)["txqlen"] == 1000
    assert backups(container) == []


def test_a_directory_that_cannot_be_made_is_named(container: Container) -> None:
    container.host.state.mkdir(exist_ok=True)
    (container.host.state / "file").write_text("")
    runtime = tuned(container, mtu=1400, dataDir=str(container.host.state / "file" / "tuning"))
    with pytest.raises(CniError, match="cannot write the backup .*file/tuning/.*: not a directory") as caught:
        runtime.add()
    assert caught.value.code == 5
    assert link(container)["mtu"] == 1500
