"""firewall: lifecycle, failures and killed processes, with every backend and ingress policy."""

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
    """Return a function that creates runners for one pod on a bridge."""
    one = pod(1, 2, with_firewall=False)

    def create(**config: Any) -> PluginRunner:
        return PluginRunner("firewall", one.container, previous=one.network.result, **config)

    return create


def no_firewalld_source_left(host: Host, backend: str) -> bool:
    """Return whether firewalld has no source left; snapshots do not contain firewalld's state."""
    return backend != "firewalld" or not host.run("firewall-cmd --zone=trusted --list-sources").split()


@by_policy
def test_add_check_and_del_leave_nothing_behind(
    make: Callable[..., PluginRunner], host: Host, backend: str, policy: str
) -> None:
    check_lifecycle(make(backend=backend, ingressPolicy=policy))
    assert no_firewalld_source_left(host, backend)


@by_policy
def test_failed_add_leaves_nothing_behind(
    make: Callable[..., PluginRunner], host: Host, backend: str, policy: str
) -> None:
    assert fail_at_every_change(lambda: make(backend=backend, ingressPolicy=policy)) >= 1
    assert no_firewalld_source_left(host, backend)


@by_policy
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(
    make: Callable[..., PluginRunner], host: Host, backend: str, policy: str
) -> None:
    assert kill_at_every_change(lambda: make(backend=backend, ingressPolicy=policy)) >= 1
    assert no_firewalld_source_left(host, backend)


@pytest.mark.usefixtures("firewalld")
@pytest.mark.parametrize("seen", ["by ADD", "never"])
def test_del_without_prev_result_removes_firewalld_sources(
    pod: MakePod, make: Callable[..., PluginRunner], seen: str
) -> None:
    runner = make(firewalldZone="work")
    host = runner.container.host
    runner.add()
    assert len(host.run("firewall-cmd --zone=work --list-sources").split()) == 2
    runner.config["firewalldZone"] = "public"  # the zone of ADD is found without the configuration
    if seen == "never":
        runner.forget()
    runner.delete()
    runner.delete()
    assert host.run("firewall-cmd --zone=work --list-sources").split() == []


@pytest.mark.usefixtures("firewalld")
def test_gc_removes_firewalld_sources_without_a_valid_attachment(pod: MakePod) -> None:
    alive, dead, other = pod(1, 2), pod(1, 3), pod(1, 4, name="other")
    alive.firewall.gc(alive.firewall)
    sources = alive.host.run("firewall-cmd --zone=trusted --list-sources").split()
    assert sorted(sources) == ["10.1.0.2/32", "10.1.0.4/32", "fd00:1::2/128", "fd00:1::4/128"]
    alive.firewall.check()
    other.firewall.check()
    dead.firewall.delete()
