"""firewall: the Go plugin and pycni handle each other's attachments, with both variants of iptables."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Host, PluginRunner

from .conftest import Pod

MakePod = Callable[..., Pod]
CallGoFirewall = Callable[..., None]
by_policy = pytest.mark.parametrize("policy", ["", "same-bridge", pytest.param("isolated", marks=pytest.mark.newer_go)])

pytestmark = [pytest.mark.usefixtures("iptables"), pytest.mark.exhaustive]


@pytest.fixture
def runner(pod: MakePod) -> PluginRunner:
    """A runner for a pod on a bridge, before its ADD."""
    one = pod(1, 2, with_firewall=False)
    return PluginRunner("firewall", one.container, previous=one.network.result, backend="iptables")


def rules(host: Host) -> list[str]:
    """Return the rules in or to CNI chains of both families."""
    lines = [line for family in ("ip", "ip6") for line in host.run(f"{family}tables-save -t filter").splitlines()]
    return [line for line in lines if line.startswith("-A") and "CNI-" in line]


def attachment_rules(host: Host) -> list[str]:
    """Return the rules with an address of the attachment."""
    return [rule for rule in rules(host) if "10.1.0.2" in rule or "fd00:1::2" in rule]


@pytest.mark.parametrize(
    "policy", ["", *(pytest.param(p, marks=pytest.mark.newer_go) for p in ("same-bridge", "isolated"))]
)
def test_both_plugins_create_the_same_rules_in_the_same_order(
    runner: PluginRunner, go_firewall: CallGoFirewall, policy: str
) -> None:
    """The rules of Go 1.1 for a policy have other comments."""
    runner.config["ingressPolicy"] = policy
    go_firewall("ADD", runner)
    by_go = rules(runner.container.host)
    go_firewall("DEL", runner)
    for family in ("ip", "ip6"):
        runner.container.host.run(f"{family}tables -F && {family}tables -X")
    runner.add()
    assert rules(runner.container.host) == by_go


@by_policy
def test_check_and_del_accept_an_add_of_the_go_plugin(
    runner: PluginRunner, go_firewall: CallGoFirewall, policy: str
) -> None:
    runner.config["ingressPolicy"] = policy
    go_firewall("ADD", runner)
    runner.check()
    runner.delete()
    host = runner.container.host
    assert attachment_rules(host) == []
    assert [rule for rule in rules(host) if "br1" in rule] == []
    with pytest.raises(CniError, match="expected rule .* not found"):
        runner.check()


@by_policy
def test_go_plugin_checks_and_deletes_an_add_of_pycni(
    runner: PluginRunner, go_firewall: CallGoFirewall, policy: str
) -> None:
    runner.config["ingressPolicy"] = policy
    runner.add()
    go_firewall("CHECK", runner)
    go_firewall("DEL", runner)
    assert attachment_rules(runner.container.host) == []
    # The address labels in pycni's nftables table are removed by its next DEL or GC.
    runner.gc()
    assert "net: test" not in runner.container.host.run("nft list ruleset")


def test_default_backend_finds_the_rules_of_the_go_plugin(runner: PluginRunner, go_firewall: CallGoFirewall) -> None:
    go_firewall("ADD", runner)
    runner.config["backend"] = ""
    runner.check()
    runner.delete()
    assert attachment_rules(runner.container.host) == []


@by_policy
def test_shared_rules_exist_once_after_adds_of_both_plugins(
    runner: PluginRunner, go_firewall: CallGoFirewall, pod: MakePod, policy: str
) -> None:
    runner.config["ingressPolicy"] = policy
    go_firewall("ADD", runner)
    runner.add()
    go_firewall("ADD", runner)
    runner.delete()
    assert attachment_rules(runner.container.host) == []
    shared = Counter(rule for rule in rules(runner.container.host) if "STAGE" not in rule)
    assert set(shared.values()) == {2}, shared


def test_rules_leaked_by_the_go_plugin_are_removed_with_the_next_attachment(
    pod: MakePod, go_firewall: CallGoFirewall
) -> None:
    """Go: DEL without prevResult removes nothing. IPAM then reassigns the address."""
    old = pod(1, 2, with_firewall=False)
    config: dict[str, Any] = {"backend": "iptables"}
    go_firewall("ADD", PluginRunner("firewall", old.container, previous=old.network.result, **config))
    new = PluginRunner("firewall", old.container, previous=old.network.result, **config)
    new.add()
    new.delete()
    assert attachment_rules(old.host) == []


def test_isolation_rules_of_both_plugins_work_together(pod: MakePod, go_firewall: CallGoFirewall) -> None:
    one, other = pod(1, 2, with_firewall=False), pod(2, 2, with_firewall=False)
    config = {"backend": "iptables", "ingressPolicy": "same-bridge"}
    by_go, by_pycni = (
        PluginRunner("firewall", each.container, previous=each.network.result, **config) for each in (one, other)
    )
    go_firewall("ADD", by_go)
    by_pycni.add()
    assert not one.reaches(other.addresses)
    assert not other.reaches(one.addresses)
    by_pycni.delete()
    assert one.reaches(other.addresses)
    by_go.check()


@pytest.mark.usefixtures("firewalld")
def test_both_plugins_share_firewalld(runner: PluginRunner, go_firewall: CallGoFirewall) -> None:
    host = runner.container.host

    def sources() -> int:
        return len(host.run("firewall-cmd --zone=trusted --list-sources").split())

    runner.config["backend"] = "firewalld"
    go_firewall("ADD", runner)
    runner.check()
    assert sources() == 2
    runner.delete()
    assert sources() == 0
    runner.add()
    go_firewall("CHECK", runner)
    go_firewall("DEL", runner)
    assert sources() == 0
    runner.gc()
    runner.config["backend"] = ""
    go_firewall("ADD", runner)  # chooses firewalld because it runs
    runner.check()
    runner.delete()
    assert sources() == 0
