"""firewall: lives that change hands between the Go plugin and ours, in both variants of iptables."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Host, PluginRunner

from .conftest import Pod

MakePod = Callable[..., Pod]
Go = Callable[..., None]
by_policy = pytest.mark.parametrize("policy", ["", "same-bridge", pytest.param("isolated", marks=pytest.mark.newer_go)])

pytestmark = [pytest.mark.usefixtures("iptables"), pytest.mark.exhaustive]


@pytest.fixture
def runtime(pod: MakePod) -> PluginRunner:
    """For an attachment behind a bridge, before its ADD."""
    one = pod(1, 2, walled=False)
    return PluginRunner("firewall", one.container, previous=one.network.result, backend="iptables")


def rules(host: Host) -> list[str]:
    """The rules of CNI in both families, those of the addresses and bridges as well as those that are shared."""
    lines = [line for family in ("ip", "ip6") for line in host.run(f"{family}tables-save -t filter").splitlines()]
    return [line for line in lines if line.startswith("-A") and "CNI-" in line]


def own(host: Host) -> list[str]:
    """Those of the attachment."""
    return [rule for rule in rules(host) if "10.1.0.2" in rule or "fd00:1::2" in rule]


@pytest.mark.parametrize(
    "policy", ["", *(pytest.param(p, marks=pytest.mark.newer_go) for p in ("same-bridge", "isolated"))]
)
def test_both_make_the_same_rules_in_the_same_order(runtime: PluginRunner, go_firewall: Go, policy: str) -> None:
    """The older Go plugin's rules of a policy have other comments."""
    runtime.config["ingressPolicy"] = policy
    go_firewall("ADD", runtime)
    by_go = rules(runtime.container.host)
    go_firewall("DEL", runtime)
    for family in ("ip", "ip6"):
        runtime.container.host.run(f"{family}tables -F && {family}tables -X")
    runtime.add()
    assert rules(runtime.container.host) == by_go


@by_policy
def test_what_go_made_ours_checks_and_removes(runtime: PluginRunner, go_firewall: Go, policy: str) -> None:
    runtime.config["ingressPolicy"] = policy
    go_firewall("ADD", runtime)
    runtime.check()
    runtime.delete()
    host = runtime.container.host
    assert own(host) == []
    assert [rule for rule in rules(host) if "br1" in rule] == []
    with pytest.raises(CniError, match="expected rule .* not found"):
        runtime.check()


@by_policy
def test_what_ours_made_go_checks_and_removes(runtime: PluginRunner, go_firewall: Go, policy: str) -> None:
    runtime.config["ingressPolicy"] = policy
    runtime.add()
    go_firewall("CHECK", runtime)
    go_firewall("DEL", runtime)
    assert own(runtime.container.host) == []
    # What is ours alone, the note whose the addresses are, goes with the next DEL, or GC.
    runtime.gc()
    assert "net: test" not in runtime.container.host.run("nft list ruleset")


def test_a_backend_that_is_not_named_may_be_what_go_chose(runtime: PluginRunner, go_firewall: Go) -> None:
    go_firewall("ADD", runtime)
    runtime.config["backend"] = ""
    runtime.check()
    runtime.delete()
    assert own(runtime.container.host) == []


@by_policy
def test_an_add_of_each_leaves_every_rule_once(
    runtime: PluginRunner, go_firewall: Go, pod: MakePod, policy: str
) -> None:
    runtime.config["ingressPolicy"] = policy
    go_firewall("ADD", runtime)
    runtime.add()
    go_firewall("ADD", runtime)
    runtime.delete()
    assert own(runtime.container.host) == []
    shared = Counter(rule for rule in rules(runtime.container.host) if "STAGE" not in rule)
    assert set(shared.values()) == {2}, shared


def test_a_rule_that_go_leaked_goes_with_our_next_attachment(pod: MakePod, go_firewall: Go) -> None:
    """Without prevResult the Go plugin removes nothing; IPAM hands the address out again."""
    old = pod(1, 2, walled=False)
    config: dict[str, Any] = {"backend": "iptables"}
    go_firewall("ADD", PluginRunner("firewall", old.container, previous=old.network.result, **config))
    new = PluginRunner("firewall", old.container, previous=old.network.result, **config)
    new.add()
    new.delete()
    assert own(old.host) == []


def test_a_fence_of_the_go_plugin_and_ours_hold_together(pod: MakePod, go_firewall: Go) -> None:
    one, other = pod(1, 2, walled=False), pod(2, 2, walled=False)
    config = {"backend": "iptables", "ingressPolicy": "same-bridge"}
    by_go, by_us = (
        PluginRunner("firewall", each.container, previous=each.network.result, **config) for each in (one, other)
    )
    go_firewall("ADD", by_go)
    by_us.add()
    assert not one.reaches(other.addresses)
    assert not other.reaches(one.addresses)
    by_us.delete()
    assert one.reaches(other.addresses)
    by_go.check()


@pytest.mark.usefixtures("firewalld")
def test_firewalld_is_shared_too(runtime: PluginRunner, go_firewall: Go) -> None:
    host = runtime.container.host

    def sources() -> int:
        return len(host.run("firewall-cmd --zone=trusted --list-sources").split())

    runtime.config["backend"] = "firewalld"
    go_firewall("ADD", runtime)
    runtime.check()
    assert sources() == 2
    runtime.delete()
    assert sources() == 0
    runtime.add()
    go_firewall("CHECK", runtime)
    go_firewall("DEL", runtime)
    assert sources() == 0
    runtime.gc()
    runtime.config["backend"] = ""
    go_firewall("ADD", runtime)  # takes firewalld, since it is there
    runtime.check()
    runtime.delete()
    assert sources() == 0
