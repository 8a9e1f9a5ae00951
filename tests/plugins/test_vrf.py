"""vrf: the interface is a member of a VRF with a routing table."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import (
    Container,
    Host,
    PluginRunner,
    check_lifecycle,
    fail_at_every_change,
    kill_at_every_change,
    wait_for,
)
from pycni.testing.snapshot import of_namespace
from tests.conftest import run_concurrently

needs_vrf = pytest.mark.needs_kernel("vrf")


def attach(container: Container, net: int = 1, **options: Any) -> dict[str, Any]:
    """Attach net<net> to br<net>, with the addresses 10.<net>.0.2 and fd00:<net>::2 and default routes."""
    addresses = [
        {"address": f"10.{net}.0.2/24", "gateway": f"10.{net}.0.1"},
        {"address": f"fd00:{net}::2/64", "gateway": f"fd00:{net}::1"},
    ]
    ipam = {"type": "static", "addresses": addresses, "routes": options.pop("routes", [])}
    config = {"bridge": f"br{net}", "isGateway": True, "isDefaultGateway": True, "ipam": ipam, **options}
    return PluginRunner("bridge", container, ifname=f"net{net}", name=f"n{net}", **config).add()


def vrf(
    container: Container, net: int = 1, *, runner_class: type[PluginRunner] = PluginRunner, **config: Any
) -> PluginRunner:
    """Return a runner of vrf for net<net>, after ADD of bridge."""
    options = {"vrfname": "blue", **config}
    return runner_class(
        "vrf", container, ifname=f"net{net}", name=f"n{net}", previous=attach(container, net), **options
    )


def runner_for_net1(container: Container, previous: dict[str, Any], **config: Any) -> PluginRunner:
    return PluginRunner("vrf", container, ifname="net1", name="n1", previous=previous, **{"vrfname": "blue", **config})


@pytest.fixture
def used_container(container: Container) -> Container:
    """A container in which a VRF existed: the rules that the kernel adds for the first VRF are permanent."""
    container.run("ip link add first type vrf table 9 && ip link del first")
    return container


def routes(container: Container, table: str, dev: str = "net1") -> list[str]:
    """Return destination and gateway of the routes through an interface in a table."""
    shown = [container.run(f"ip {family} route show table {table} dev {dev}", check=False) for family in ("-4", "-6")]
    lines = [line.split() for text in shown for line in text.splitlines()]
    unicast = [words for words in lines if words[0] not in ("local", "broadcast", "multicast", "anycast")]
    return sorted(" ".join([words[0], *words[2:3]] if "via" in words else words[:1]) for words in unicast)


def table_of(container: Container, name: str = "blue") -> int:
    (found,) = container.json(f"ip -j -d link show {name}")
    return int(found["linkinfo"]["info_data"]["table"])


EXPECTED_ROUTES = ["10.1.0.0/24", "default 10.1.0.1", "default fd00:1::1", "fd00:1::/64", "fe80::/64"]


@needs_vrf
def test_each_interface_is_routed_by_the_table_of_its_vrf(host: Host, container: Container) -> None:
    first, second = vrf(container), vrf(container, 2, vrfname="red")
    for runner in (first, second):
        assert runner.add() == runner.previous
    assert routes(container, "main") == routes(container, "main", "net2") == []
    assert routes(container, "1") == EXPECTED_ROUTES
    for net, name in ((1, "blue"), (2, "red")):
        for address in (f"10.{net}.0.1", f"fd00:{net}::1"):
            container.run(f"ping -c1 -W2 -I {name} {address}")
        host.run(f"ping -c1 -W2 10.{net}.0.2 && ping -c1 -W2 fd00:{net}::2")
    for runner in (first, second):
        runner.check()


@needs_vrf
def test_first_packet_after_add_is_answered(container: Container) -> None:
    """The kernel sets an interface down and up when its master changes."""
    vrf(container).add()
    for address in ("10.1.0.1", "fd00:1::1"):
        container.run(f"ping -c1 -W0.9 -I blue {address}")


@needs_vrf
def test_several_interfaces_share_a_vrf_until_the_last_is_removed(container: Container) -> None:
    runners = [vrf(container, net) for net in (1, 2, 3)]
    for runner in runners:
        runner.add()
    assert {table_of(container)} == {1}
    for runner in runners:
        runner.check()
        runner.delete()
        left = "blue" in container.run("ip -br link")
        assert left == (runner is not runners[-1])


@needs_vrf
def test_concurrent_adds_and_dels(container: Container) -> None:
    runners = [vrf(container, net, vrfname=f"v{net % 2}") for net in (1, 2, 3, 4)]

    def add_check_delete_add(runner: PluginRunner) -> None:
        runner.add()
        runner.check()
        runner.delete()
        runner.add()

    run_concurrently(container.host, add_check_delete_add, runners)
    for runner in runners:
        runner.check()
    assert table_of(container, "v0") != table_of(container, "v1")


@needs_vrf
def test_table_0_selects_an_unused_table(container: Container) -> None:
    """Go: only tables of other VRFs are considered."""
    runner = vrf(container)
    container.run("ip link add other type vrf table 1 && ip rule add from 10.7.0.0/16 lookup 2")
    container.run("ip route add blackhole 10.7.0.0/16 table 3 && ip -6 route add blackhole fd00:7::/64 table 4")
    runner.add()
    assert table_of(container) == 5


@needs_vrf
def test_table_can_be_configured(container: Container) -> None:
    runner = vrf(container, table=70000)
    runner.add()
    runner.check()
    assert table_of(container) == 70000
    assert routes(container, "70000") == EXPECTED_ROUTES


@needs_vrf
def test_sbr_does_not_choose_the_table_of_a_vrf(container: Container) -> None:
    container.run("ip link add blue type vrf table 100")
    PluginRunner("sbr", container, ifname="net1", name="n1", previous=attach(container)).add()
    assert "lookup 101" in container.run("ip rule")


@needs_vrf
def test_moved_routes_keep_their_attributes(container: Container) -> None:
    """Including routes in other tables, and routes whose gateway is reachable only because of "onlink"."""
    extra = [
        {"dst": "10.9.0.0/16", "gw": "10.1.0.7", "mtu": 1300, "advmss": 1200, "priority": 7},
        {"dst": "10.8.0.0/16", "table": 500},
        {"dst": "fd00:9::/64", "gw": "fd00:1::7", "priority": 8},
    ]
    runner = vrf(container)
    attached = container.run("ip link del net1; echo") and attach(container, routes=extra)
    runner.previous = attached
    container.run("ip route add 10.6.0.0/16 via 169.254.1.1 dev net1 onlink src 10.1.0.2")
    before = [container.run(f"ip {family} route show table main proto boot") for family in ("-4", "-6")]
    other = container.run("ip route show table 500")
    runner.add()
    runner.check()
    assert [container.run(f"ip {family} route show table 1 proto boot") for family in ("-4", "-6")] == before
    assert container.run("ip route show table 500") == other
    runner.delete()
    assert [container.run(f"ip {family} route show table main proto boot") for family in ("-4", "-6")] == before


@needs_vrf
def test_routes_of_ptp_are_moved_unchanged(host: Host, container: Container) -> None:
    """ptp routes its subnets through the host. No on-link route to them may be added."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00:5::/64"}]]}
    defaults = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    previous = PluginRunner("ptp", container, ipam={**ipam, "routes": defaults}).add()
    before = routes(container, "main", "eth0")
    runner = PluginRunner("vrf", container, previous=previous, vrfname="blue")
    runner.add()
    runner.check()
    assert not {"10.5.0.0/24", "fd00:5::/64"} & set(before)
    assert routes(container, "1", "eth0") == before
    for address in ("10.5.0.1", "fd00:5::1"):
        container.run(f"ping -c1 -W2 -I blue {address}")


@needs_vrf
@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("ip link add blue type vrf table 7", "VRF blue already exist with different routing table 7"),
        ("ip link add blue type bridge", "Netlink blue is not a VRF"),
        (
            "ip link add br9 type bridge && ip link set net1 master br9",
            "interface net1 has already a master set: br9",
        ),
    ],
)
def test_error_names_a_conflicting_link_and_nothing_changes(container: Container, setup: str, message: str) -> None:
    runner = vrf(container, table=8)
    container.run(setup)
    before = of_namespace(container)
    with pytest.raises(CniError, match=message):
        runner.add()
    assert {line for line in of_namespace(container) if "l3mdev" not in line} == {
        line for line in before if "l3mdev" not in line
    }


@needs_vrf
def test_existing_vrf_is_used(container: Container) -> None:
    runner = vrf(container)
    container.run("ip link add blue type vrf table 7")
    runner.add()
    runner.check()
    assert table_of(container) == 7
    assert routes(container, "7") == EXPECTED_ROUTES


@needs_vrf
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip link set net1 nomaster", "failed to find net1 associated to vrf blue"),
        ("ip link del blue", 'link "blue" not found'),
        ("ip link set blue down", "blue should have up True"),
        ("ip addr del fd00:1::2/64 dev net1", "net1 has lost fd00:1::2/64"),
        ("ip route del default table 1", r"net1 has lost the route to 0\.0\.0\.0/0 via 10\.1\.0\.1 \(table 1\)"),
    ],
)
def test_check_reports_changes_of_vrf_addresses_and_routes(container: Container, change: str, message: str) -> None:
    runner = vrf(container)
    runner.add()
    runner.check()
    container.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


@needs_vrf
def test_check_fails_if_the_table_differs(container: Container) -> None:
    runner = vrf(container, table=7)
    runner.add()
    runner.config["table"] = 8
    with pytest.raises(CniError, match="blue should have table 8, but has 7"):
        runner.check()


@needs_vrf
def test_check_of_bridge_finds_routes_in_the_table_of_the_vrf(container: Container) -> None:
    runner = vrf(container)
    runner.add()
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
    bridge = PluginRunner("bridge", container, ifname="net1", name="n1", bridge="br1", ipam=ipam, isGateway=True)
    bridge.result = runner.result
    bridge.check()
    container.run("ip route flush table 1")
    with pytest.raises(CniError, match="net1 has lost the route to"):
        bridge.check()


@needs_vrf
def test_add_check_and_del_leave_nothing_behind(used_container: Container) -> None:
    """Including the interface's addresses and routes."""
    check_lifecycle(vrf(used_container))


@needs_vrf
@pytest.mark.usefixtures("through_server")
def test_add_check_and_del_through_the_server_leave_nothing_behind(used_container: Container) -> None:
    check_lifecycle(vrf(used_container))


@needs_vrf
def test_failed_add_restores_addresses_and_routes(used_container: Container) -> None:
    previous = attach(used_container)
    assert fail_at_every_change(lambda: runner_for_net1(used_container, previous)) >= 2


@needs_vrf
@pytest.mark.exhaustive
def test_del_cleans_up_after_a_killed_add(used_container: Container) -> None:
    previous = attach(used_container)
    assert kill_at_every_change(lambda: runner_for_net1(used_container, previous), gc=False) >= 2


@needs_vrf
def test_routes_are_moved_without_carrier(used_container: Container) -> None:
    """The kernel restores IPv6 routes of kept addresses only when the interface has carrier."""
    runner = vrf(used_container)
    used_container.host.run(f"ip link set {runner.owner.host_ifname} down")
    wait_for(
        lambda: used_container.run("ip route; ip -6 route show default").count("linkdown") > 2, "net1 without carrier"
    )
    before = of_namespace(used_container)
    runner.add()
    runner.check()
    runner.delete()
    assert of_namespace(used_container) == before


@needs_vrf
@pytest.mark.parametrize("change", ["ip link del blue", "ip link del net1", "ip link set net1 nomaster", "true"])
def test_del_succeeds_without_interface_or_vrf(container: Container, change: str) -> None:
    """Go: DEL fails without the interface."""
    runner = vrf(container)
    runner.add()
    container.run(change)
    runner.delete()
    assert "blue" not in container.run("ip -br link")
    runner.delete()


@needs_vrf
def test_del_keeps_other_vrfs_and_links_of_other_kinds(container: Container) -> None:
    runner = vrf(container, vrfname="red")
    container.run("ip link add blue type bridge && ip link add green type vrf table 7 && ip link set net1 master green")
    for name in ("blue", "red", ""):
        runner.config["vrfname"] = name
        runner.delete()
    assert "master green" in container.run("ip link show net1")
    assert "blue" in container.run("ip -br link")


@needs_vrf
@pytest.mark.exhaustive
def test_both_plugins_check_and_delete_adds_of_the_other(
    used_container: Container, go_runner: type[PluginRunner]
) -> None:
    previous = attach(used_container, isDefaultGateway=False)  # Go 1.1 loses routes, so pycni's CHECK would fail
    by_go = go_runner(
        "vrf", used_container, ifname="net1", name="n1", previous=previous, vrfname="blue", cniVersion="1.0.0"
    )
    by_pycni = runner_for_net1(used_container, previous, cniVersion="1.0.0")
    before = of_namespace(used_container)
    by_pycni.result = by_go.add()
    by_pycni.check()
    by_pycni.delete()
    assert of_namespace(used_container) == before
    by_go.result = by_pycni.add()
    by_go.check()
    by_go.delete()
    assert "blue" not in used_container.run("ip -br link")


@needs_vrf
def test_status_and_gc_succeed(container: Container) -> None:
    runner = vrf(container)
    runner.status()
    runner.add()
    runner.gc(runner)
    runner.check()


@needs_vrf
def test_example_of_the_readme(container: Container) -> None:
    readme = Path(__file__).parents[2] / "plugins" / "vrf" / "README.md"
    (example,) = re.findall(r"^```json\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    bridge, blue = json.loads(example)["plugins"]
    previous = PluginRunner("bridge", container, **bridge).add()
    runner = PluginRunner("vrf", container, previous=previous, **blue)
    assert len(runner.add()["ips"]) == 2
    runner.check()
    runner.delete()


def test_error_names_the_missing_link_kind_and_nothing_changes(container: Container, kernel_has: Any) -> None:
    if kernel_has("vrf"):
        pytest.skip("needs a kernel without vrf")
    runner = vrf(container)
    with pytest.raises(CniError, match="this kernel has no vrf links") as caught:
        runner.status()
    assert caught.value.code == 50
    before = of_namespace(container)
    with pytest.raises(CniError, match="cannot create VRF blue with table 1: operation not supported"):
        runner.add()
    assert of_namespace(container) == before
    runner.delete()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vrfname": ""}, "configuration is expected to have a valid vrf name"),
        ({"vrfname": None}, "configuration is expected to have a valid vrf name"),
        ({"vrfname": "a/b"}, "vrfname: "),
        ({"vrfname": "x" * 16}, "vrfname: "),
        ({"table": -1}, "table: .*greater than or equal to 0"),
        ({"table": 1 << 32}, "table: .*less than 4294967296"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option(
    container: Container, config: dict[str, Any], message: str
) -> None:
    runner = PluginRunner("vrf", container, **{"vrfname": "blue", **config})
    with pytest.raises(CniError, match=message) as caught:
        runner.add()
    assert caught.value.code == 7
    runner.delete()


def test_add_requires_prev_result_and_the_interface(container: Container) -> None:
    runner = PluginRunner("vrf", container, vrfname="blue")
    with pytest.raises(CniError, match="Required prevResult missing"):
        runner.add()
    runner.previous = {"cniVersion": "1.1.0", "interfaces": []}
    with pytest.raises(CniError, match='link "eth0" not found'):
        runner.add()


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all"])
def test_del_succeeds_without_the_namespace(container: Container, netns: str) -> None:
    runner = PluginRunner("vrf", container, vrfname="blue")
    runner.netns = netns
    runner.delete()
