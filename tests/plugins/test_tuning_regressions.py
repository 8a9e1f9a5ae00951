"""tuning: regression tests, mostly for faults of the Go plugin (docs/reference/plugins.md#tuning)."""

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner

MAC = "02:00:5e:00:00:01"


def tuning_runner(
    container: Container, ifname: str = "eth0", *, runner_class: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """Return a runner of tuning, after ADD of bridge."""
    bridge_result = PluginRunner("bridge", container, ifname=ifname, bridge="br0").add()
    directory = str(data_dir(container))
    return runner_class(
        "tuning", container, ifname=ifname, **{"dataDir": directory, "prevResult": bridge_result, **config}
    )


def data_dir(container: Container) -> Path:
    return container.host.state / "tuning"


def backups(container: Container) -> list[str]:
    return sorted(path.name for path in data_dir(container).glob("*"))


def link(container: Container, ifname: str = "eth0") -> dict[str, Any]:
    (found,) = container.json(f"ip -j link show dev {ifname}")
    return dict(found)


def test_gc_removes_backups_without_a_valid_attachment(containers: list[Container]) -> None:
    runners = [tuning_runner(container, mtu=1400) for container in containers]
    for runner in runners:
        runner.add()
    alive, *_ = runners
    alive.gc(alive)
    assert backups(alive.container) == [f"{alive.container.id}_eth0.json"]
    alive.check()


def test_gc_keeps_backups_that_may_belong_to_another_network(
    containers: list[Container], go_runner: type[PluginRunner]
) -> None:
    """Go: the files do not name their network, and all networks share the directory."""
    own, other, by_go = containers
    tuning_runner(other, mtu=1400, name="other").add()
    tuning_runner(by_go, runner_class=go_runner, mtu=1400).add()
    runner = tuning_runner(own, mtu=1400)
    runner.add()
    runner.gc()
    assert backups(own) == sorted([f"{other.id}_eth0.json", f"{by_go.id}_eth0.json"])


def test_failed_add_restores_sysctls(container: Container) -> None:
    runner = tuning_runner(
        container, sysctl={"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "1"}, mtu=10
    )
    before = container.run("cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/arp_filter")
    with pytest.raises(CniError, match="cannot set eth0 mtu 10"):
        runner.add()
    assert container.run("cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/eth0/arp_filter") == before
    assert backups(container) == []


def test_sysctls_are_restored_if_a_later_one_is_refused(container: Container) -> None:
    runner = tuning_runner(container, sysctl={"net.core.somaxconn": "77", "net.ipv4.nonsense": "1"})
    before = container.run("cat /proc/sys/net/core/somaxconn")
    with pytest.raises(CniError, match="net/ipv4/nonsense"):
        runner.add()
    assert container.run("cat /proc/sys/net/core/somaxconn") == before


@pytest.mark.parametrize(
    "change",
    [
        {"sysctl": 7},
        {"mac": "zz"},
        {"mtu": "many"},
        {"args": {"cni": {"txQLen": -7}}},
        {"runtimeConfig": "none"},
        {"prevResult": {"ips": 3}},
    ],
)
def test_del_succeeds_with_an_invalid_configuration(container: Container, change: dict[str, Any]) -> None:
    runner = tuning_runner(container, mac=MAC)
    before = link(container)
    runner.add()
    runner.config |= change
    runner.cni_args = "NONSENSE"
    runner.forget()
    runner.delete()
    assert link(container) == before
    assert backups(container) == []


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/passwd"])
def test_del_removes_the_backup_when_the_network_namespace_is_gone(container: Container, netns: str) -> None:
    """Go: the backup is kept and restored to the next container with the ID."""
    runner = tuning_runner(container, mtu=1400)
    runner.add()
    runner.netns = netns
    runner.delete()
    assert backups(container) == []
    runner.delete()


def test_del_changes_nothing_in_a_namespace_of_another_container(containers: list[Container]) -> None:
    deleted, other = tuning_runner(containers[0], mtu=1400), tuning_runner(containers[1], mtu=1300)
    deleted.add()
    other.add()
    deleted.netns = other.netns
    deleted.delete()
    other.check()
    assert backups(other.container) == [f"{other.container.id}_eth0.json"]


def test_args_cni_sysctl_works_without_the_option_sysctl(container: Container) -> None:
    runner = tuning_runner(container, args={"cni": {"sysctl": {"net.core.somaxconn": "77"}}})
    runner.add()
    assert container.run("cat /proc/sys/net/core/somaxconn").strip() == "77"


@pytest.mark.parametrize("config", [{}, {"mtu": 1400}])
def test_missing_prev_result_is_an_error(container: Container, config: dict[str, Any]) -> None:
    message = "Required prevResult missing: must be called as chained plugin"
    with pytest.raises(CniError, match=message) as caught:
        PluginRunner("tuning", container, **config).add()
    assert caught.value.code == 7


def test_interface_names_can_contain_dots(container: Container) -> None:
    """Go: IFNAME is replaced before dots are converted to slashes, so "eth0.7" becomes "eth0/7"."""
    runner = tuning_runner(container, "eth0.7", sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"})
    runner.add()
    assert container.run("cat /proc/sys/net/ipv4/conf/eth0.7/arp_filter").strip() == "1"
    runner.check()


def test_repeated_add_keeps_the_original_values_in_the_backup(container: Container) -> None:
    runner = tuning_runner(container, mac=MAC, mtu=1400)
    before = link(container)
    first = runner.add()
    repeated = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=1400)
    repeated.add()
    repeated.delete()
    assert link(container) == before


def test_repeated_add_extends_the_backup(container: Container) -> None:
    runner = tuning_runner(container, mtu=1400)
    before = link(container)
    first = runner.add()
    repeated = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=1300)
    repeated.add()
    repeated.delete()
    assert link(container) == before


def test_failed_repeated_add_keeps_the_backup(container: Container) -> None:
    runner = tuning_runner(container, mtu=1400)
    before = link(container)
    first = runner.add()
    text = (data_dir(container) / backups(container)[0]).read_text()
    with pytest.raises(CniError, match="cannot set eth0 mtu 10"):
        PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=first, mac=MAC, mtu=10).add()
    assert (data_dir(container) / backups(container)[0]).read_text() == text
    runner.delete()
    assert link(container) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mtu": "many", "mac": 7}', "\xff\xfe"])
def test_add_and_del_succeed_with_a_damaged_backup(container: Container, text: str) -> None:
    runner = tuning_runner(container, mtu=1400)
    runner.add()
    (path,) = data_dir(container).iterdir()
    path.write_text(text, encoding="latin-1")
    repeated = PluginRunner("tuning", container, dataDir=str(data_dir(container)), prevResult=runner.result, mtu=1300)
    repeated.add()
    assert json.loads(path.read_text())["mtu"] == 1400
    path.write_text(text, encoding="latin-1")
    runner.delete()
    assert backups(container) == []


def test_del_succeeds_if_a_value_cannot_be_restored(container: Container) -> None:
    runner = tuning_runner(container, mtu=1400, txQLen=7)
    runner.add()
    (path,) = data_dir(container).iterdir()
    path.write_text(json.dumps({"mtu": 10, "txQLen": 1000}))
    runner.delete()
    assert link(container)["txqlen"] == 1000
    assert backups(container) == []


def test_error_names_a_data_dir_that_cannot_be_created(container: Container) -> None:
    container.host.state.mkdir(exist_ok=True)
    (container.host.state / "file").write_text("")
    runner = tuning_runner(container, mtu=1400, dataDir=str(container.host.state / "file" / "tuning"))
    with pytest.raises(CniError, match="cannot write the backup .*file/tuning/.*: not a directory") as caught:
        runner.add()
    assert caught.value.code == 5
    assert link(container)["mtu"] == 1500
