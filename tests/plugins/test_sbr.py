"""sbr: packets leave by the interface that has their source address."""

import json
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change
from pycni.testing.snapshot import of_namespace
from tests.conftest import run_concurrently

GATEWAYS = {4: "10.{net}.0.1", 6: "fd00:{net}::1"}


def attach(container: Container, net: int = 1, **ipam: Any) -> dict[str, Any]:
    """Attach net<net> to br<net>, with the addresses 10.<net>.0.2 and fd00:<net>::2; net1 has the default routes."""
    addresses = [
        {"address": f"10.{net}.0.2/24", "gateway": f"10.{net}.0.1"},
        {"address": f"fd00:{net}::2/64", "gateway": f"fd00:{net}::1"},
    ]
    ipam = {"type": "static", "addresses": addresses, **ipam}
    config = {"bridge": f"br{net}", "isGateway": True, "isDefaultGateway": net == 1}
    return PluginRunner("bridge", container, ifname=f"net{net}", name=f"n{net}", ipam=ipam, **config).add()


def sbr(
    container: Container, net: int = 1, *, runner_class: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """Return a runner of sbr for net<net>, after ADD of bridge."""
    previous = attach(container, net)
    return runner_class("sbr", container, ifname=f"net{net}", name=f"n{net}", previous=previous, **config)


def rules(container: Container) -> list[tuple[str, str]]:
    """Return source and table of each rule that has a source."""
    found = container.json("ip -j rule") + container.json("ip -j -6 rule")
    return sorted((rule["src"], rule["table"]) for rule in found if rule["src"] != "all")


def routes(container: Container, table: str, dev: str = "net1") -> list[str]:
    """Return destination and gateway of the routes through an interface in a table."""
    shown = [container.run(f"ip {family} route show table {table} dev {dev}", check=False) for family in ("-4", "-6")]
    lines = [line.split() for text in shown for line in text.splitlines()]
    return sorted(" ".join([words[0], *words[2:3]] if "via" in words else words[:1]) for words in lines)


class RestoringRunner(PluginRunner):
    """Restores the interface's routes of the kernel and of bridge after DEL."""

    def delete(self) -> None:
        super().delete()
        self.container.run("ip link set net1 down; ip link set net1 up")
        self.container.run("ip route add default via 10.1.0.1; ip -6 route add default via fd00:1::1")


def test_answers_leave_by_the_interface_that_received_the_request(
    host: Host, container: Container, outside: Container
) -> None:
    """Each bridge drops packets with a source address of the other network."""
    outside.run("ip route add default via 192.0.2.1; ip route add default via 2001:db8::1")
    first, second = sbr(container), sbr(container, 2)
    for net, other in ((1, 2), (2, 1)):
        host.run(f"nft 'add table inet t{net}; add chain inet t{net} c {{ type filter hook prerouting priority 0; }}'")
        host.run(f"nft 'add rule inet t{net} c iifname br{net} ip saddr 10.{other}.0.0/24 drop'")
        host.run(f"nft 'add rule inet t{net} c iifname br{net} ip6 saddr fd00:{other}::/64 drop'")
    assert not outside.pings("10.2.0.2")
    assert not outside.pings("fd00:2::2")
    for runner in (first, second):
        runner.add()
    for runner in (first, second):
        runner.check()
    for net in (1, 2):
        assert outside.pings(f"10.{net}.0.2")
        assert outside.pings(f"fd00:{net}::2")


def test_each_address_has_its_own_table_and_the_main_table_has_none_of_the_routes(container: Container) -> None:
    runner = sbr(container)
    result = runner.add()
    assert result == runner.previous
    assert rules(container) == [("10.1.0.2", "100"), ("fd00:1::2", "101")]
    assert routes(container, "100") == ["10.1.0.0/24", "default 10.1.0.1"]
    assert routes(container, "101") == ["default fd00:1::1", "fd00:1::/64"]
    assert routes(container, "main") == ["fe80::/64"]
    second = sbr(container, 2)
    second.add()
    assert [table for _, table in rules(container)] == ["100", "102", "101", "103"]


def test_tables_of_several_addresses_have_the_routes_of_their_subnets(container: Container) -> None:
    addresses = [{"address": f"10.{net}.0.2/24", "gateway": f"10.{net}.0.1"} for net in (1, 3)]
    extra = [{"dst": f"10.9{net}.0.0/16", "gw": f"10.{net}.0.7"} for net in (1, 3)]
    ipam = {"type": "static", "addresses": addresses, "routes": extra}
    previous = PluginRunner("bridge", container, ifname="net1", name="n1", bridge="br1", ipam=ipam).add()
    container.run("ip route add 10.95.0.0/16 dev net1 scope link")
    PluginRunner("sbr", container, ifname="net1", name="n1", previous=previous).add()
    for net, table in ((1, "100"), (3, "101")):
        expected = [f"10.{net}.0.0/24", f"10.9{net}.0.0/16 10.{net}.0.7", "10.95.0.0/16", f"default 10.{net}.0.1"]
        assert routes(container, table) == sorted(expected)


def test_repeated_add_finds_the_routes_outside_the_main_table(container: Container) -> None:
    runner = sbr(container)
    runner.add()
    runner.add()
    assert routes(container, "102") == ["10.1.0.0/24", "default 10.1.0.1"]
    assert routes(container, "103") == ["default fd00:1::1", "fd00:1::/64"]
    runner.check()
    runner.delete()
    assert rules(container) == []


def test_link_local_addresses_work_after_add(container: Container) -> None:
    """Go: the route to fe80::/64 is removed, and IPv6 routes are copied to tables for IPv4 addresses."""
    runner = sbr(container)
    runner.add()
    words = container.host.run("ip -6 -o addr show br1 scope link").split()
    assert container.pings(f"{words[3].partition('/')[0]}%net1")


def test_configured_table_gets_rules_only_and_routes_stay_in_the_main_table(container: Container) -> None:
    runner = sbr(container, table=500)
    before = routes(container, "main")
    runner.add()
    runner.check()
    assert rules(container) == [("10.1.0.2", "500"), ("fd00:1::2", "500")]
    assert routes(container, "main") == before
    assert routes(container, "500") == []


def test_tables_in_use_are_not_chosen(container: Container) -> None:
    """Go: only routes of the main table are considered, so tables of other programs are overwritten."""
    runner = sbr(container)
    container.run("ip route add blackhole 10.7.0.0/16 table 100; ip rule add from 10.8.0.0/16 lookup 101")
    runner.add()
    assert [table for source, table in rules(container) if source in ("10.1.0.2", "fd00:1::2")] == ["102", "103"]


def test_del_with_a_configured_table_keeps_rules_for_other_tables(container: Container) -> None:
    runner = sbr(container, table=500)
    container.run("ip rule add from 10.1.0.2 lookup 7")
    runner.add()
    runner.delete()
    assert rules(container) == [("10.1.0.2", "7")]


def test_configured_gateways_override_those_of_ipam(container: Container) -> None:
    runner = sbr(container, gateways=["10.1.0.9", "fd00:1::9"])
    runner.add()
    assert routes(container, "100") == ["10.1.0.0/24", "default 10.1.0.9"]
    assert routes(container, "101") == ["default fd00:1::9", "fd00:1::/64"]
    runner.check()


def test_add_source_hints_keeps_the_subnet_routes_in_the_main_table(container: Container) -> None:
    sbr(container, addSourceHints=True).add()
    assert routes(container, "main") == ["10.1.0.0/24", "fd00:1::/64", "fe80::/64"]
    hints = [*container.json("ip -j route show dev net1"), *container.json("ip -j -6 route show fd00:1::/64")]
    assert {route["prefsrc"] for route in hints} == {"10.1.0.2", "fd00:1::2"}


def test_routes_with_a_gateway_outside_all_subnets_are_moved(host: Host, container: Container) -> None:
    """Go: they are removed from the main table and added nowhere.

    A container with a /32 address loses its default route.
    """
    host.run("ip link add p1 type veth peer name net1 netns " + container.path)
    host.run("ip addr add 169.254.1.1/32 dev p1; ip link set p1 up; ip route add 10.1.0.2 dev p1")
    host.run("ip addr add 10.7.0.1/32 dev p1")
    container.run("ip addr add 10.1.0.2/32 dev net1; ip link set net1 up; ip route add 169.254.1.1 dev net1")
    container.run("ip route add default via 169.254.1.1")
    interfaces = [{"name": "p1"}, {"name": "net1", "sandbox": container.path}]
    previous = {"cniVersion": "1.1.0", "interfaces": interfaces, "ips": [{"address": "10.1.0.2/32", "interface": 1}]}
    PluginRunner("sbr", container, ifname="net1", previous=previous).add()
    assert routes(container, "100") == ["169.254.1.1", "default 169.254.1.1"]
    container.run("ping -c1 -W1 -I 10.1.0.2 10.7.0.1")


def test_ipv6_multipath_routes_are_split_by_interface(container: Container) -> None:
    """The kernel merges two IPv6 default routes of equal metric into one route with two next hops."""
    runners = [sbr(container, net) for net in (1, 2)]
    container.run("ip -6 route add default via fd00:2::1 dev net2 || ip -6 route append default via fd00:2::1 dev net2")
    container.run("ip -6 route append fd00:9::/64 via fd00:1::9; ip -6 route append fd00:9::/64 via fd00:2::9")
    for runner in runners:
        runner.add()
    assert routes(container, "101") == ["default fd00:1::1", "fd00:1::/64", "fd00:9::/64 fd00:1::9"]
    assert routes(container, "103", "net2") == ["default fd00:2::1", "fd00:2::/64", "fd00:9::/64 fd00:2::9"]


def test_moved_routes_keep_their_attributes(container: Container) -> None:
    extra = [{"dst": "10.9.0.0/16", "gw": "10.1.0.7", "mtu": 1300, "advmss": 1200, "priority": 7}]
    previous = attach(container, routes=extra)
    PluginRunner("sbr", container, ifname="net1", previous=previous).add()
    (route,) = container.json("ip -j route show 10.9.0.0/16 table 100")
    assert (route["gateway"], route["metric"]) == ("10.1.0.7", 7)
    assert {"mtu": 1300, "advmss": 1200}.items() <= route["metrics"][0].items()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gateways": ["10.1.0.1", "10.1.0.2"]}, r"gateways: .*multiple IPv4 addresses: 10\.1\.0\.1, 10\.1\.0\.2"),
        ({"gateways": ["fd00::1", "fd00::2"]}, "gateways: .*multiple IPv6 addresses: fd00::1, fd00::2"),
        ({"gateways": ["10.1.0.1", "::1", "::2"]}, "cannot contain more than 2 entries"),
        ({"gateways": ["here"]}, r"gateways\[0\]"),
        ({"table": -1}, "table: .*greater than or equal to 1"),
        ({"table": "x"}, "table: "),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option_and_nothing_changes(
    container: Container, config: dict[str, Any], message: str
) -> None:
    runner = sbr(container, **config)
    before = of_namespace(container)
    with pytest.raises(CniError, match=message) as caught:
        runner.add()
    assert caught.value.code == 7
    assert of_namespace(container) == before
    runner.delete()


def test_add_requires_prev_result_with_addresses(container: Container) -> None:
    with pytest.raises(CniError, match="Required prevResult missing"):
        PluginRunner("sbr", container).add()
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": container.path}]}
    container.run("ip link add eth0 type veth peer name p0")
    with pytest.raises(CniError, match="No IP addresses supplied on interface: eth0"):
        PluginRunner("sbr", container, previous=previous).add()


def test_addresses_of_other_interfaces_are_ignored(container: Container) -> None:
    runner = sbr(container)
    previous = runner.previous or {}
    interfaces = {"interfaces": [*previous["interfaces"], {"name": "other", "sandbox": container.path}]}
    other_address = {"address": "10.7.0.2/24", "interface": len(previous["interfaces"])}
    runner.previous = {**previous, **interfaces, "ips": [*previous["ips"], other_address]}
    runner.add()
    assert [source for source, _ in rules(container)] == ["10.1.0.2", "fd00:1::2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip rule del from 10.1.0.2", r"the rule from 10\.1\.0\.2 lookup a table of its own is missing"),
        ("ip -6 rule del from fd00:1::2", "the rule from fd00:1::2"),
        ("ip route flush table 100", r"net1 has lost the route to 0\.0\.0\.0/0 via 10\.1\.0\.1 \(table 100\)"),
        ("ip link set net1 down", "net1 has lost the route to"),
    ],
)
def test_check_reports_missing_rules_and_routes(container: Container, change: str, message: str) -> None:
    runner = sbr(container)
    runner.add()
    runner.check()
    container.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


def test_check_of_bridge_finds_routes_in_the_tables_of_sbr(container: Container) -> None:
    """CHECK of a chain passes the final result to every plugin."""
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}
    bridge = PluginRunner("bridge", container, bridge="br1", isDefaultGateway=True, ipam=ipam)
    runner = PluginRunner("sbr", container, previous=bridge.add())
    runner.add()
    bridge.check()
    container.run("ip route flush table 100")
    with pytest.raises(CniError, match="eth0 has lost the route to"):
        bridge.check()


def test_add_check_and_del_leave_nothing_behind(container: Container) -> None:
    """RestoringRunner restores the routes: DEL does not, since the interface is usually deleted."""
    previous = attach(container)
    check_lifecycle(RestoringRunner("sbr", container, ifname="net1", name="n1", previous=previous))


@pytest.mark.parametrize("config", [{}, {"table": 500}, {"addSourceHints": True}, {"gateways": ["10.1.0.9"]}])
def test_failed_add_restores_routes_and_rules(container: Container, config: dict[str, Any]) -> None:
    previous = attach(container)

    def make() -> PluginRunner:
        return RestoringRunner("sbr", container, ifname="net1", name="n1", previous=previous, **config)

    assert fail_at_every_change(make) >= (2 if "table" in config else 8)


@pytest.mark.exhaustive
def test_del_cleans_up_after_a_killed_add(container: Container) -> None:
    previous = attach(container)

    def make() -> PluginRunner:
        return RestoringRunner("sbr", container, ifname="net1", name="n1", previous=previous)

    assert kill_at_every_change(make, gc=False) >= 8


def test_del_removes_only_its_own_rules(container: Container) -> None:
    runner = sbr(container)
    container.run("ip rule add from 10.7.0.2 lookup 7; ip rule add from 10.1.0.2 to 10.8.0.0/16 lookup 8")
    runner.add()
    runner.delete()
    assert rules(container) == [("10.1.0.2", "8"), ("10.7.0.2", "7")]
    runner.delete()


def test_del_succeeds_without_the_interface(container: Container) -> None:
    runner = sbr(container)
    runner.add()
    container.run("ip link del net1")
    runner.delete()
    assert rules(container) == []


def test_del_keeps_the_rules_of_another_container_in_the_namespace(containers: list[Container]) -> None:
    missing, other, _ = containers
    runner = sbr(missing)
    runner.add()
    PluginRunner("bridge", missing, ifname="net1", name="n1", bridge="br1").delete()
    sbr(other).add()
    runner.netns = other.path
    runner.delete()
    assert [source for source, _ in rules(other)] == ["10.1.0.2", "fd00:1::2"]


def test_no_file_is_created_at_the_path_of_a_missing_namespace(container: Container, tmp_path: Any) -> None:
    """Go: the path is opened as a lock file, which creates it."""
    runner = sbr(container)
    missing = tmp_path / "missing"
    runner.netns = str(missing)
    runner.delete()
    with pytest.raises(CniError) as caught:
        runner.add()
    assert caught.value.code == 8
    assert not missing.exists()


def test_concurrent_adds_in_one_container_use_distinct_tables(container: Container) -> None:
    runners = [sbr(container, net) for net in (1, 2, 3)]
    run_concurrently(container.host, PluginRunner.add, runners)
    tables = [table for _, table in rules(container)]
    assert len(set(tables)) == 6
    for runner in runners:
        runner.check()


@pytest.mark.parametrize("table", [{}, pytest.param({"table": 500}, marks=pytest.mark.newer_go)])
def test_both_plugins_check_and_delete_adds_of_the_other(
    container: Container, go_runner: type[PluginRunner], table: dict[str, int]
) -> None:
    by_go = sbr(container, runner_class=go_runner, **table)
    by_pycni = PluginRunner("sbr", container, ifname="net1", name="n1", previous=by_go.previous, **table)
    by_pycni.result = by_go.add()
    by_pycni.check()
    by_pycni.delete()
    assert rules(container) == []
    by_pycni.add()
    by_go.delete()
    assert rules(container) == []


def test_nothing_is_written_to_stderr(container: Container, capfd: pytest.CaptureFixture[str]) -> None:
    """Go: internal structures are printed."""
    runner = sbr(container)
    runner.add()
    runner.delete()
    assert capfd.readouterr().err == ""
    assert json.dumps(runner.result)
