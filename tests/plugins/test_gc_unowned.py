"""GC of what the Go plugins leave without an owner: what runtimes and host-local have on disk tells if it is used."""

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
    """What is /var/lib/cni elsewhere."""
    monkeypatch.setattr(address_usage, "_STATE", tmp_path / "cni")
    return tmp_path / "cni"


def result(last: int) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/some"}],
        "ips": [{"address": f"10.1.0.{last}/24", "interface": 0}, {"address": f"fd00:1::{last}/64", "interface": 0}],
    }


def made_by_go(go_runner: type[PluginRunner], plugin: str, container: Container, last: int) -> PluginRunner:
    """Ours for an attachment whose rules Go has made."""
    mapping = {"hostPort": 8000 + last, "containerPort": 80, "protocol": "tcp"}
    options: dict[str, Any] = {
        "firewall": {"backend": "iptables"},
        "portmap": {"backend": "nftables", "runtimeConfig": {"portMappings": [mapping]}},
    }[plugin]
    go_runner(plugin, container, prevResult=result(last), **options).add()
    return PluginRunner(plugin, container, **options)


def remember(state: Path, container: Container, network: str, last: int) -> None:
    """Write a result down, as runtimes do."""
    config = NetworkConfig.parse(f'{{"cniVersion":"1.0.0","name":"{network}","plugins":[{{"type":"x"}}]}}')
    Cache(state).store(config, RuntimeConf(container.id), VersionedResult.parse(result(last)))


def with_rules(host: Host) -> set[str]:
    """The addresses that rules are about."""
    rules = host.run("iptables-save -t filter; ip6tables-save -t filter; nft list ruleset")
    return set(re.findall(r"10\.1\.0\.[1-9]\b|fd00:1::[1-9]\b", rules))


def of(*lasts: int) -> set[str]:
    return {f"{net}{last}" for last in lasts for net in ("10.1.0.", "fd00:1::")}


@by_plugin
@pytest.mark.usefixtures("iptables")
def test_rules_for_addresses_that_nobody_has_go(
    plugin: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, other, gone = (
        made_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers, start=2)
    )
    remember(state, alive.container, "test", 2)
    remember(state, other.container, "other", 3)
    assert with_rules(host) == of(2, 3, 4)
    alive.gc(alive)
    assert with_rules(host) == of(2, 3)
    alive.gc(alive)
    remember(state, gone.container, "test", 4)
    gone.gc(alive, gone)
    assert with_rules(host) == of(2, 3)


@by_plugin
@pytest.mark.usefixtures("iptables")
def test_rules_for_an_address_that_host_local_holds_stay(
    plugin: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, _ = (
        made_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers[:2], start=2)
    )
    remember(state, alive.container, "test", 2)
    store = state / "networks" / "another"
    store.mkdir(parents=True)
    for address in of(3):
        (store / address).touch()
    (store / "last_reserved_ip.0").write_text("10.1.0.3")
    alive.gc(alive)
    assert with_rules(host) == of(2, 3)


@by_plugin
@pytest.mark.usefixtures("iptables")
@pytest.mark.parametrize("reason", ["no results", "of another network", "an incomplete cache", "a damaged result"])
def test_where_it_is_not_known_who_has_what_rules_stay(
    plugin: str, reason: str, host: Host, containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    alive, other, _ = (
        made_by_go(go_runner, plugin, container, last) for last, container in enumerate(containers, start=2)
    )
    valid = [alive]
    if reason != "no results":
        remember(state, alive.container, "other" if reason == "of another network" else "test", 2)
    if reason == "an incomplete cache":
        valid.append(other)
    if reason == "a damaged result":
        (state / "results" / "test-c9-eth0").write_text('{"kind":"cniCacheV1","networkName":"test"')
    alive.gc(*valid)
    assert with_rules(host) == of(2, 3, 4)


def test_backups_of_tuning_for_interfaces_that_nobody_has_go(
    containers: list[Container], go_runner: type[PluginRunner], state: Path
) -> None:
    kept = state / "tuning"
    config: dict[str, Any] = {"dataDir": str(kept), "mtu": 1400, "cniVersion": "1.0.0"}
    for container in containers:
        container.run("ip link add eth0 type veth peer name peer0")
        go_runner("tuning", container, prevResult=result(2), **config).add()
    alive, other, _ = containers
    runtime = PluginRunner("tuning", alive, **{**config, "cniVersion": "1.1.0"})
    runtime.gc(runtime)
    assert len(list(kept.iterdir())) == 3
    remember(state, alive, "test", 2)
    remember(state, other, "other", 3)
    runtime.gc(runtime)
    assert {path.stem for path in kept.iterdir()} == {f"{alive.id}_eth0", f"{other.id}_eth0"}
