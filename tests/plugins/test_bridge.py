"""bridge: the effect of each option."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from pycni.kernel.journal import watching
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from tests.conftest import run_concurrently

STATIC = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}


def attach(container: Container, last: int = 2, **config: Any) -> PluginRunner:
    """Call ADD for a container whose static addresses end in `last`; return the runner."""
    ipam = {"type": "static", "addresses": [{"address": f"10.1.0.{last}/24"}, {"address": f"fd00:1::{last}/64"}]}
    runner = PluginRunner("bridge", container, **{"bridge": "br0", "ipam": ipam, **config})
    runner.add()
    return runner


def link(netns: Host | Container, name: str) -> dict[str, Any]:
    (found,) = netns.json(f"ip -j -d link show dev {name}")
    return dict(found)


def port_of(runner: PluginRunner) -> dict[str, Any]:
    return link(runner.container.host, runner.owner.host_ifname)


def addresses(netns: Host | Container, name: str) -> set[str]:
    (found,) = netns.json(f"ip -j addr show dev {name}")
    return {f"{info['local']}/{info['prefixlen']}" for info in found["addr_info"] if info["scope"] == "global"}


def test_result_contains_bridge_port_and_container_interface(host: Host, container: Container) -> None:
    runner = attach(container, isDefaultGateway=True)
    bridge, port, eth = link(host, "br0"), port_of(runner), link(container, "eth0")
    assert runner.result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br0", "mac": bridge["address"]},
            {"name": port["ifname"], "mac": port["address"]},
            {"name": "eth0", "mac": eth["address"], "sandbox": container.path},
        ],
        "ips": [
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2},
            {"address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 2},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}],
    }


def test_containers_reach_each_other_and_the_host(containers: list[Container]) -> None:
    for last, container in enumerate(containers, start=2):
        attach(container, last, isGateway=True)
    for address in ("10.1.0.1", "10.1.0.3", "10.1.0.4", "fd00:1::1", "fd00:1::3", "fd00:1::4"):
        assert containers[0].pings(address), address


def test_ipv6_address_is_not_tentative_after_add(container: Container) -> None:
    """containernetworking/plugins#680: no duplicate address detection for addresses from IPAM."""
    attach(container)
    (found,) = container.json("ip -j addr show dev eth0")
    assert [info["local"] for info in found["addr_info"] if info.get("tentative")] == []


def test_enabledad_waits_for_duplicate_address_detection(container: Container) -> None:
    attach(container, enabledad=True)
    (found,) = container.json("ip -j addr show dev eth0")
    (address,) = [info for info in found["addr_info"] if info["local"] == "fd00:1::2"]
    assert not address.get("tentative")
    assert not address.get("nodad")
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_dad").strip() == "1"


def test_enabledad_refuses_a_duplicate_address(containers: list[Container]) -> None:
    attach(containers[0])
    with pytest.raises(CniError, match="fd00:1::2/64 of eth0 is in use by another host"):
        attach(containers[1], enabledad=True)
    assert "eth0" not in containers[1].run("ip -br link")


def test_is_gateway_assigns_the_gateway_and_enables_forwarding(host: Host, container: Container) -> None:
    attach(container, isGateway=True)
    assert addresses(host, "br0") == {"10.1.0.1/24", "fd00:1::1/64"}
    assert host.run("cat /proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert host.run("cat /proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"
    assert container.json("ip -j route show default") == []


def test_bridge_with_another_ipv4_address_is_refused(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge && ip addr add 10.7.0.1/24 dev br0")
    with pytest.raises(
        CniError, match=r'"br0" already has an IP address different from 10\.1\.0\.1/24: 10\.7\.0\.1/24'
    ):
        attach(container, isGateway=True)
    assert addresses(host, "br0") == {"10.7.0.1/24"}


def test_force_address_replaces_another_ipv4_address(host: Host, container: Container) -> None:
    host.run("ip link add br0 type bridge && ip addr add 10.7.0.1/24 dev br0 && ip addr add fd00:7::1/64 dev br0")
    attach(container, isGateway=True, forceAddress=True)
    # An IPv6 address of another subnet does not conflict.
    assert addresses(host, "br0") == {"10.1.0.1/24", "fd00:1::1/64", "fd00:7::1/64"}


@pytest.mark.parametrize("backend", ["", "nftables", "iptables"])
@pytest.mark.usefixtures("outside")
def test_ip_masq_masquerades_traffic_to_other_networks(containers: list[Container], backend: str) -> None:
    container, neighbour, _ = containers
    attach(container, 2, isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend).check()
    attach(neighbour, 3, isDefaultGateway=True)
    # The host outside has no route to 10.1.0.0/24, so it answers only masqueraded packets.
    assert container.pings("192.0.2.2")
    assert container.pings("2001:db8::2")
    assert not neighbour.pings("192.0.2.2")
    assert container.pings("10.1.0.3")


def test_hairpin_mode_is_set_on_the_port(container: Container) -> None:
    assert port_of(attach(container, hairpinMode=True))["linkinfo"]["info_slave_data"]["hairpin"] is True


def test_promisc_mode_is_set_on_the_bridge_and_checked(host: Host, container: Container) -> None:
    runner = attach(container, promiscMode=True)
    assert "PROMISC" in link(host, "br0")["flags"]
    runner.check()
    host.run("ip link set br0 promisc off")
    with pytest.raises(CniError, match="br0 should have promisc True"):
        runner.check()


def test_isolated_ports_do_not_reach_each_other(containers: list[Container]) -> None:
    attach(containers[0], 2, portIsolation=True, isGateway=True)
    attach(containers[1], 3, portIsolation=True, isGateway=True)
    attach(containers[2], 4, isGateway=True)
    assert not containers[0].pings("10.1.0.3")
    assert containers[0].pings("10.1.0.4")
    assert containers[0].pings("10.1.0.1")


def test_macspoofchk_drops_frames_with_another_source_mac(containers: list[Container]) -> None:
    guarded, neighbour, _ = containers
    attach(guarded, 2, macspoofchk=True, isGateway=True)
    attach(neighbour, 3, isGateway=True)
    assert guarded.pings("10.1.0.3")
    guarded.run("ip link set eth0 address 02:00:00:00:be:ef")
    neighbour.run("ip neigh flush all")
    assert not guarded.pings("10.1.0.3")


def test_mtu_is_set_on_both_ends_of_the_veth_and_on_a_new_bridge(host: Host, container: Container) -> None:
    runner = attach(container, mtu=1400)
    assert [link(host, "br0")["mtu"], port_of(runner)["mtu"], link(container, "eth0")["mtu"]] == [1400] * 3


@pytest.mark.parametrize(
    ("config", "cni_args", "expected"),
    [
        ({}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:01"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:02"}}}, "MAC=02:00:00:00:00:01", "02:00:00:00:00:02"),
        (
            {"args": {"cni": {"mac": "02:00:00:00:00:02"}}, "runtimeConfig": {"mac": "02-00-00-00-00-0A"}},
            "",
            "02:00:00:00:00:0a",
        ),
    ],
)
def test_mac_precedence_is_runtime_config_then_args_then_cni_args(
    container: Container, config: dict[str, Any], cni_args: str, expected: str
) -> None:
    runner = PluginRunner("bridge", container, bridge="br0", **config)
    runner.cni_args = cni_args
    result = runner.add()
    assert link(container, "eth0")["address"] == expected
    assert result["interfaces"][2]["mac"] == expected


def test_invalid_mac_in_cni_args_is_refused_and_nothing_changes(host: Host, container: Container) -> None:
    runner = PluginRunner("bridge", container, bridge="br0")
    runner.cni_args = "MAC=zz:11"
    with pytest.raises(CniError, match='mac: invalid MAC address.*"zz:11"') as caught:
        runner.add()
    assert caught.value.code == 7
    assert "br0" not in host.run("ip -br link")


def test_disable_container_interface_keeps_the_interface_down(container: Container) -> None:
    runner = attach(container, ipam={}, disableContainerInterface=True)
    assert "UP" not in link(container, "eth0")["flags"]
    runner.check()
    container.run("ip link set eth0 up")
    runner.check()


def test_add_without_ipam_returns_no_addresses(container: Container) -> None:
    runner = attach(container, ipam={})
    assert runner.result is not None
    assert "ips" not in runner.result
    assert "UP" in link(container, "eth0")["flags"]


def test_dns_of_the_configuration_overrides_dns_of_ipam(containers: list[Container]) -> None:
    ipam = {**STATIC, "dns": {"nameservers": ["10.1.0.53"], "domain": "ipam.test"}}
    assert (attach(containers[0], ipam=ipam).result or {})["dns"] == ipam["dns"]
    dns = {"search": ["conf.test"]}
    assert (attach(containers[1], ipam=ipam, dns=dns).result or {})["dns"] == dns


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hairpinMode": True, "promiscMode": True}, "cannot set hairpin mode and promiscuous mode at the same time"),
        ({"ipam": STATIC, "disableContainerInterface": True}, "cannot use IPAM when DisableContainerInterface"),
        ({"vlan": 4095}, r"vlan: invalid VLAN ID 4095 \(must be between 0 and 4094\)"),
        ({"vlanTrunk": [{"minID": 5}]}, r"vlanTrunk\[0\]: minID and maxID .* maxID is missing"),
        ({"vlanTrunk": [{"minID": 5, "maxID": 4}]}, "minID is greater than maxID"),
        ({"vlanTrunk": [{"id": 0}]}, r"vlanTrunk\[0\]\.id: .* greater than or equal to 1, not 0"),
        ({"mtu": "1500"}, 'mtu: .*integer, not "1500"'),
        ({"mtu": 1500.0}, r"mtu: .*integer, not 1500\.0"),
        ({"isGateway": "true"}, 'isGateway: .*boolean, not "true"'),
        ({"ipMasqBackend": "ebpf"}, 'unknown ipmasq backend "ebpf"'),
        ({"runtimeConfig": {"mac": "zz:11"}}, 'runtimeConfig.mac: invalid MAC address.*"zz:11"'),
        ({"bridge": "a-name-too-long-for-linux"}, "bridge: interface name is too long"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option_and_nothing_changes(
    host: Host, container: Container, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CniError, match=message) as caught:
        PluginRunner("bridge", container, **{"bridge": "br0", **config}).add()
    assert caught.value.code == 7
    assert "br0" not in host.run("ip -br link")


def test_link_of_another_kind_with_the_bridge_name_is_refused(host: Host, container: Container) -> None:
    host.run("ip link add br0 type veth peer name br1")
    with pytest.raises(CniError, match='"br0" already exists but is not a bridge') as caught:
        attach(container)
    assert '"veth"' in caught.value.details


@pytest.mark.usefixtures("without_vlan_filtering")
@pytest.mark.parametrize("option", [{"vlan": 100}, {"vlanTrunk": [{"id": 100}]}])
def test_vlan_options_are_refused_without_vlan_filtering(container: Container, option: dict[str, Any]) -> None:
    with pytest.raises(CniError, match="this kernel has no bridge VLAN filtering") as caught:
        PluginRunner("bridge", container, bridge="br0", **option).add()
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in caught.value.details


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_containers_reach_each_other_only_in_the_same_vlan(containers: list[Container]) -> None:
    attach(containers[0], 2, vlan=100)
    attach(containers[1], 3, vlan=100)
    runner = attach(containers[2], 4, vlan=200, vlanTrunk=[{"minID": 300, "maxID": 302}])
    assert containers[0].pings("10.1.0.3")
    assert not containers[0].pings("10.1.0.4")
    (port,) = containers[0].host.json(f"bridge -j vlan show dev {runner.owner.host_ifname}")
    assert [entry["vlan"] for entry in port["vlans"]] == [200, 300, 301, 302]
    runner.check()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_vlan_trunk_carries_tagged_frames_and_untagged_frames_use_vlan_1(containers: list[Container]) -> None:
    trunk = attach(containers[0], 2, vlanTrunk=[{"id": 300}])
    attach(containers[1], 3, vlan=300)
    attach(containers[2], 4)
    containers[0].run("ip link add link eth0 name eth0.300 type vlan id 300")
    containers[0].run("ip addr add 10.3.0.1/24 dev eth0.300 && ip link set eth0.300 up")
    containers[1].run("ip addr add 10.3.0.2/24 dev eth0")
    assert containers[0].pings("10.3.0.2")
    assert containers[0].pings("10.1.0.4")
    assert not containers[0].pings("10.1.0.3")
    trunk.check()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_check_fails_if_the_port_lost_a_vlan(container: Container) -> None:
    runner = attach(container, vlan=100, vlanTrunk=[{"id": 300}])
    port = runner.owner.host_ifname
    container.host.run(f"bridge vlan del dev {port} vid 300")
    with pytest.raises(CniError, match=f"{port} has lost VLAN 300"):
        runner.check()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_gateway_of_a_vlan_is_an_interface_in_this_vlan(host: Host, container: Container) -> None:
    runner = attach(container, vlan=100, isGateway=True)
    assert addresses(host, "br0.100") == {"10.1.0.1/24", "fd00:1::1/64"}
    assert (runner.result or {})["interfaces"][3]["name"] == "br0.100"
    assert container.pings("10.1.0.1")
    runner.check()


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_failed_add_keeps_the_vlan_gateway_of_a_concurrent_add(host: Host, containers: list[Container]) -> None:
    first, second, _ = containers
    options = {"vlan": 100, "isGateway": True, "ipMasq": True}

    @contextmanager
    def watch(what: str) -> Iterator[None]:
        if "masquerade" in what:
            with watching(lambda _what: nullcontext()):
                attach(second, 3, **options)
            raise CniError("injected failure")
        yield

    with pytest.raises(CniError, match="injected"), watching(watch):
        attach(first, **options)
    assert second.pings("10.1.0.1")


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_concurrent_first_adds_share_the_gateway_of_a_vlan(host: Host) -> None:
    created = [Container(host) for _ in range(4)]

    def add(numbered: tuple[int, Container]) -> PluginRunner:
        return attach(numbered[1], numbered[0] + 2, vlan=100, isGateway=True)

    runners = run_concurrently(host, add, enumerate(created))
    for runner in runners:
        runner.check()
        assert runner.container.pings("10.1.0.1")


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_vlan_gateway_of_a_killed_add_is_attached_to_the_bridge(host: Host, container: Container) -> None:
    host.run("ip link add veth-half type veth peer name br0.100")
    attach(container, vlan=100, isGateway=True).check()
    assert container.pings("10.1.0.1")


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_error_names_a_vlan_gateway_whose_name_is_too_long(container: Container) -> None:
    with pytest.raises(CniError, match=r"cannot create a-long-bridge\.100, the gateway of its VLAN"):
        attach(container, bridge="a-long-bridge", vlan=100, isGateway=True)


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_preserve_default_vlan_keeps_vlan_1_on_the_port(container: Container) -> None:
    runner = attach(container, vlan=100, preserveDefaultVlan=True)
    (port,) = container.host.json(f"bridge -j vlan show dev {runner.owner.host_ifname}")
    assert [entry["vlan"] for entry in port["vlans"]] == [1, 100]


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_preserve_default_vlan_keeps_vlan_1_on_the_gateways_port(host: Host, container: Container) -> None:
    attach(container, vlan=100, preserveDefaultVlan=True, isGateway=True)
    (port,) = host.json(f"bridge -j vlan show dev {link(host, 'br0.100')['link']}")
    assert [entry["vlan"] for entry in port["vlans"]] == [1, 100]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_concurrent_first_adds_share_one_bridge(host: Host, backend: str) -> None:
    """clearlinux/distribution#966: concurrent first ADDs fail because the bridge or its address already exists."""
    created = [Container(host) for _ in range(16)]

    def add(numbered: tuple[int, Container]) -> PluginRunner:
        options = {"isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": backend, "macspoofchk": True}
        return attach(numbered[1], numbered[0] + 2, **options)

    runners = run_concurrently(host, add, enumerate(created))
    assert len({(runner.result or {})["interfaces"][0]["mac"] for runner in runners}) == 1
    assert addresses(host, "br0") == {"10.1.0.1/24", "fd00:1::1/64"}
    if backend == "nftables":
        assert host.run("nft list chain inet pycni postrouting").count(" masquerade\n") == 2
    else:
        assert host.run("iptables-save -t nat").count("-A POSTROUTING") == 16
        assert host.run("ip6tables-save -t nat").count("-A POSTROUTING") == 16
    assert all(container.pings("10.1.0.2") for container in created[1:])
    for runner in runners:
        runner.check()
    for container in created:
        container.close()
