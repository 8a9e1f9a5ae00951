"""firewall: whole lives, failures and deaths, by every backend and with every policy."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.testing import Host, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

from .conftest import Pod

MakePod = Callable[..., Pod]

pytestmark = pytest.mark.exhaustive
POLICIES = ["open", "same-bridge", "isolated"]
by_policy = pytest.mark.parametrize("policy", POLICIES)


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy", "firewalld"])
def backend(request: pytest.FixtureRequest, use_iptables: Callable[[str], None]) -> str:
    name, _, variant = str(request.param).partition("-")
    if name == "iptables":
        use_iptables(variant)
    if name == "firewalld":
        request.getfixturevalue("firewalld")
    return name


@pytest.fixture
def make(pod: MakePod) -> Callable[..., PluginRunner]:
    """Makes runtimes for one pod behind a bridge, each before its ADD."""
    one = pod(1, 2, walled=False)

    def again(**config: Any) -> PluginRunner:
        return PluginRunner("firewall", one.container, previous=one.network.result, **config)

    return again


def no_source_is_left(host: Host, backend: str) -> bool:
    """Snapshots do not look into firewalld."""
    return backend != "firewalld" or not host.run("firewall-cmd --zone=trusted --list-sources").split()


@by_policy
def test_it_leaves_nothing_behind(make: Callable[..., PluginRunner], host: Host, backend: str, policy: str) -> None:
    check_lifecycle(make(backend=backend, ingressPolicy=policy))
    assert no_source_is_left(host, backend)


@by_policy
def test_a_failed_add_leaves_nothing_behind(
    make: Callable[..., PluginRunner], host: Host, backend: str, policy: str
) -> None:
    assert fail_at_every_change(lambda: make(backend=backend, ingressPolicy=policy)) >= 1
    assert no_source_is_left(host, backend)


@by_policy
@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del_or_gc(
    make: Callable[..., PluginRunner], host: Host, backend: str, policy: str
) -> None:
    assert kill_at_every_change(lambda: make(backend=backend, ingressPolicy=policy)) >= 1
    assert no_source_is_left(host, backend)


@pytest.mark.usefixtures("firewalld")
@pytest.mark.parametrize("seen", ["by ADD", "never"])
def test_sources_of_firewalld_go_without_prev_result(
    pod: MakePod, make: Callable[..., PluginRunner], seen: str
) -> None:
    runtime = make(firewalldZone="work")
    host = runtime.container.host
    runtime.add()
    assert len(host.run("firewall-cmd --zone=work --list-sources").split()) == 2
    runtime.config["firewalldZone"] = "public"  # changed meanwhile
    if seen == "never":
        runtime.forget()
    runtime.delete()
    runtime.delete()
    assert host.run("firewall-cmd --zone=work --list-sources").split() == []


@pytest.mark.usefixtures("firewalld")
def test_sources_of_firewalld_go_with_gc(pod: MakePod) -> None:
    alive, dead, other = pod(1, 2), pod(1, 3), pod(1, 4, name="other")
    alive.firewall.gc(alive.firewall)
    sources = alive.host.run("firewall-cmd --zone=trusted --list-sources").split()
    assert sorted(sources) == ["10.1.0.2/32", "10.1.0.4/32", "fd00:1::2/128", "fd00:1::4/128"]
    alive.firewall.check()
    other.firewall.check()
    dead.firewall.delete()
