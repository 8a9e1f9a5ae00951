"""GC of rules and files that the Go plugins left and that name no attachment.

The state of runtimes and host-local on disk shows which addresses are in use.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.conversion import VersionedResult
from pycni.runtime import Cache, NetworkConfig, RuntimeConf
from pycni.sdk import address_usage
from pycni.testing import Container, Host, PluginRunner

pytestmark = pytest.mark.direct
by_plugin = pytest.mark.parametrize("plugin", ["firewall", pytest.param("portmap", marks=pytest.mark.newer_go)])


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory that replaces /var/lib/cni."""
    monkeypatch.setattr(address_usage, "_STATE", tmp_path / "cni")
    return tmp_path / "cni"


def result(last: int) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/some"}],
        "ips": [{"address": f"10.1.0.{last}/24", "interface": 0}, {"address": f"fd00:1::{last}/64", "interface": 0}],
    }


def added_by_go(go_runner: type[PluginRunner], plugin: str, container: Container, last: int) -> PluginRunner:
    """Call ADD of the Go plugin; return a runner of pycni for the attachment."""
    mapping = {"hostPort": 8000 + last, "containerPort": 80, "protocol": "tcp"}
    options: dict[str, Any] = {
        "firewall": {"backend": "iptables"},
        "portmap": {"backend": "nftables", "runtimeConfig": {"portMappings": [mapping]}},
    }[plugin]
    go_runner(plugin, container, prevResult=result(last), **options).add()
    return PluginRunner(plugin, container, **options)


def write_cache_entry(state: Path, container: Container, network: str, last: int) -> None:
    """Write a result to the runtimes' cache."""
    config = NetworkConfig.parse(f'{{"cniVersion":"1.0.0","name":"{network}","plugins":[{{"type":"x"}}]}}')
    Cache(state).store(config, RuntimeConf(container.id), VersionedResult.parse(result(last)))


def addresses_in_rules(host: Host) -> set[str]:
    """Return the addresses for which rules exist."""
    rules = host.run("iptables-save -t filter; ip6tables-save -t filter; nft list ruleset")
    return set(re.findall(r"10\.1\.0\.[1-9]\b|fd00:1::[1-9]\b", rules))


def addresses(*last_numbers: int) -> set[str]:
    return {f"{net}{last}" for last in last_numbers for net in ("10.1.0.", "fd00:1::")}


@by_plugin
@pytest.mark.usefixtures("iptables")
def test_rules_for_unused_addresses_are_removed(
    plugin: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, other, deleted = (
        added_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers, start=2)
    )
    write_cache_entry(state, alive.container, "test", 2)
    write_cache_entry(state, other.container, "other", 3)
    assert addresses_in_rules(host) == addresses(2, 3, 4)
    alive.gc(alive)
    assert addresses_in_rules(host) == addresses(2, 3)
    alive.gc(alive)
    write_cache_entry(state, deleted.container, "test", 4)
    deleted.gc(alive, deleted)
    assert addresses_in_rules(host) == addresses(2, 3)


@by_plugin
@pytest.mark.usefixtures("iptables")
def test_rules_for_addresses_reserved_by_host_local_are_kept(
    plugin: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, _ = (
        added_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers[:2], start=2)
    )
    write_cache_entry(state, alive.container, "test", 2)
    store = state / "networks" / "another"
    store.mkdir(parents=True)
    for address in addresses(3):
        (store / address).touch()
    (store / "last_reserved_ip.0").write_text("10.1.0.3")
    alive.gc(alive)
    assert addresses_in_rules(host) == addresses(2, 3)


@by_plugin
@pytest.mark.usefixtures("iptables")
@pytest.mark.parametrize("reason", ["no results", "of another network", "an incomplete cache", "a damaged result"])
def test_rules_are_kept_if_the_cache_is_missing_or_incomplete(
    plugin: str, reason: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, other, _ = (
        added_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers, start=2)
    )
    valid = [alive]
    if reason != "no results":
        write_cache_entry(state, alive.container, "other" if reason == "of another network" else "test", 2)
    if reason == "an incomplete cache":
        valid.append(other)
    if reason == "a damaged result":
        (state / "results" / "test-c9-eth0").write_text('{"kind":"cniCacheV1","networkName":"test"')
    alive.gc(*valid)
    assert addresses_in_rules(host) == addresses(2, 3, 4)


def test_tuning_backups_of_unused_interfaces_are_removed(
    containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    backups = state / "tuning"
    config: dict[str, Any] = {"dataDir": str(backups), "mtu": 1400, "cniVersion": "1.0.0"}
    for container in containers:
        container.run("ip link add eth0 type veth peer name peer0")
        go_runner("tuning", container, prevResult=result(2), **config).add()
    alive, other, _ = containers
    runner = PluginRunner("tuning", alive, **{**config, "cniVersion": "1.1.0"})
    runner.gc(runner)
    assert len(list(backups.iterdir())) == 3
    write_cache_entry(state, alive, "test", 2)
    write_cache_entry(state, other, "other", 3)
    runner.gc(runner)
    assert {path.stem for path in backups.iterdir()} == {f"{alive.id}_eth0", f"{other.id}_eth0"}
