"""dhcp: what real servers grant, and every option."""

import base64
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.dhcp.config import DhcpConfig

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner, wait_for

from .conftest import BRIDGE, BridgeOf, Keeper, Lan, address_of

# Option 121 as dhcpd writes it: 10.99.0.0/16 by 10.55.0.2, 10.98.1.0/24 on the link, the default by 10.55.0.3.
CLASSLESS = "option classless 16,10,99,10,55,0,2, 24,10,98,1,0,0,0,0, 0,10,55,0,3;"


def test_a_container_gets_uses_and_returns_an_address(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc()
    runtime = bridge()
    result = runtime.add()
    (ip,) = result["ips"]
    assert ip == {"address": ip["address"], "gateway": "10.55.0.1", "interface": 2}
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.55.0.1"}]
    assert address_of(container) == [ip["address"]]
    assert container.pings("10.55.0.1")
    runtime.check()
    runtime.delete()
    assert keeper.records() == []
    wait_for(lambda: f"DHCPRELEASE of {ip['address'].partition('/')[0]}" in lan.said(), "the release")


def test_the_example_of_the_readme(lan: Lan, keeper: Keeper, container: Container) -> None:
    text = (Path(__file__).parents[3] / "plugins" / "dhcp" / "README.md").read_text()
    document = json.loads(text.partition("```json")[2].partition("```")[0])
    lan.isc("option interface-mtu 1400;", CLASSLESS)
    plugin = document.pop("type")
    document["ipam"]["daemonSocketPath"] = str(keeper.socket)
    runtime = PluginRunner(plugin, container, **document)
    assert [route["dst"] for route in runtime.add()["routes"]] == ["10.99.0.0/16", "10.98.1.0/24", "0.0.0.0/0"]
    runtime.check()
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")


def test_a_container_gets_an_address_of_dnsmasq(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.dnsmasq()
    runtime = bridge()
    address = runtime.add()["ips"][0]["address"]
    assert address_of(container) == [address]
    runtime.delete()
    wait_for(lambda: f"DHCPRELEASE(eth0) {address.partition('/')[0]}" in lan.said(), "the release")


def test_the_server_is_told_who_asks_as_by_the_go_plugin(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.dnsmasq()
    bridge().add()
    client_id = b"\0" + f"{container.id}/test/eth0".encode()
    leases = (lan.directory / "dnsmasq.leases").read_text()
    assert leases.split()[-1] == client_id.hex(":")
    (record,) = keeper.records()
    assert record["client"]["containerId"] == container.id


def test_r37_resolver_settings_and_time_servers_go_into_the_result(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.dnsmasq(
        *("--dhcp-option=6,10.55.0.53,10.55.0.54", "--dhcp-option=15,example.org"),
        *(
            "--dhcp-option=option:domain-search,eng.example.org,example.org",
            "--dhcp-option=option:ntp-server,10.55.0.9,10.55.0.10",
        ),
    )
    result = bridge().add()
    assert result["ntp"] == ["10.55.0.9", "10.55.0.10"]
    assert PluginRunner("tuning", container, previous=result).add()["ntp"] == result["ntp"]
    assert result["dns"] == {
        "nameservers": ["10.55.0.53", "10.55.0.54"],
        "domain": "example.org",
        "search": ["eng.example.org", "example.org"],
    }


def test_only_what_is_requested_is_asked_for(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.dnsmasq("--dhcp-option=6,10.55.0.53")
    result = bridge(request=[{"skipDefault": True, "option": "subnet-mask"}]).add()
    assert "dns" not in result or not result["dns"]
    assert "routes" not in result
    assert "requested options: 1:netmask\n" in lan.said()


def test_a_list_of_requests_is_never_empty(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    """Such a one is malformed; as with the Go plugin, others stand in for it."""
    lan.dnsmasq("--dhcp-option=6,10.55.0.53")
    result = bridge(request=[{"skipDefault": True}]).add()
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.55.0.1"}]
    assert result["dns"]["nameservers"] == ["10.55.0.53"]
    assert "requested options: 1:netmask, 3:router, 15:domain-name, 6:dns-server\n" in lan.said()


def test_requested_options_come_first_by_name_or_number(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.dnsmasq()
    bridge(request=[{"option": "121"}, {"option": "interface-mtu"}, {"option": "routers"}]).add()
    lines = ", ".join(re.findall(r"requested options: (.*)", lan.said())).split(", ")
    numbers = [int(part.partition(":")[0]) for part in lines if part][:8]
    assert numbers == [121, 26, 3, 1, 6, 15, 119, 42]


def test_the_mtu_of_the_server_is_the_interfaces(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc("option interface-mtu 1380;")
    result = bridge(request=[{"option": "interface-mtu"}]).add()
    assert "mtu 1380 " in container.run("ip link show eth0")
    assert [interface.get("mtu") for interface in result["interfaces"]] == [None, None, 1380]


def test_an_mtu_that_is_not_asked_for_changes_nothing(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc("option interface-mtu 1380;")
    bridge().add()
    assert "mtu 1500 " in container.run("ip link show eth0")


def test_classless_routes_stand_in_for_all_others(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc(CLASSLESS, "option static-routes 10.97.0.0 10.55.0.4;")
    runtime = bridge(request=[{"option": "121"}, {"option": "33"}], priority=50)
    result = runtime.add()
    assert result["routes"] == [
        {"dst": "10.99.0.0/16", "gw": "10.55.0.2", "priority": 50},
        {"dst": "10.98.1.0/24", "gw": "0.0.0.0", "priority": 50, "scope": 253},
        {"dst": "0.0.0.0/0", "gw": "10.55.0.3", "priority": 50},
    ]
    assert result["ips"][0]["gateway"] == "10.55.0.1"
    routes = container.run("ip -4 route show")
    assert "default via 10.55.0.3 dev eth0 metric 50" in routes
    assert "10.99.0.0/16 via 10.55.0.2 dev eth0 metric 50" in routes
    assert "10.98.1.0/24 dev eth0 scope link metric 50" in routes
    runtime.check()


def test_static_routes_have_the_masks_of_their_classes(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc("option static-routes 10.0.0.0 10.55.0.2, 172.16.0.0 10.55.0.3, 192.168.7.0 10.55.0.4;")
    assert bridge(request=[{"option": "static-routes"}]).add()["routes"] == [
        {"dst": "10.0.0.0/8", "gw": "10.55.0.2"},
        {"dst": "172.16.0.0/16", "gw": "10.55.0.3"},
        {"dst": "192.168.7.0/24", "gw": "10.55.0.4"},
        {"dst": "0.0.0.0/0", "gw": "10.55.0.1"},
    ]


def test_what_is_provided_reaches_the_server(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.dnsmasq()
    runtime = bridge(
        provide=[
            {"option": "host-name", "fromArg": "K8S_POD_NAME"},
            {"option": "60", "value": "acme-vendor"},
            {"option": "user-class", "value": "gold"},
            {"option": "12", "fromArg": "ABSENT"},
        ]
    )
    runtime.cni_args = "IgnoreUnknown=1;K8S_POD_NAME=web-0"
    runtime.add()
    said = lan.said()
    assert "client provides name: web-0" in said
    assert "vendor class: acme-vendor" in said
    assert "user class: gold" in said


@pytest.mark.parametrize(
    ("cni_args", "told"),
    [({"K": "arg"}, {12: b"arg", 77: b"arg"}), ({}, {12: b"value"}), ({"K": ""}, {}), ({"k": "arg"}, {12: b"value"})],
)
def test_an_argument_of_the_call_counts_before_the_value(cni_args: dict[str, str], told: dict[int, bytes]) -> None:
    provide = [{"option": "host-name", "value": "value", "fromArg": "K"}, {"option": "77", "fromArg": "K"}]
    assert DhcpConfig.read({"ipam": {"type": "dhcp", "provide": provide}}).provided(cni_args) == told


def test_a_client_id_may_be_provided(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.dnsmasq()
    runtime = bridge(provide=[{"option": "dhcp-client-identifier", "value": "my-client"}])
    runtime.add()
    assert (lan.directory / "dnsmasq.leases").read_text().split()[-1] == b"my-client".hex(":")
    runtime.delete()
    wait_for(lambda: not (lan.directory / "dnsmasq.leases").read_text(), "the release, under the same id")


def test_an_address_and_a_time_may_be_wished_for(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    """Go: options are texts, whatever they mean."""
    lan.dnsmasq()
    wishes = [
        {"option": "dhcp-requested-address", "fromArg": "IP"},
        {"option": "dhcp-lease-time", "value": "150"},
    ]
    runtime = bridge(provide=wishes, request=[{"option": "51"}])
    runtime.cni_args = "IgnoreUnknown=1;IP=10.55.0.142"
    assert runtime.add()["ips"][0]["address"] == "10.55.0.142/24"
    (record,) = keeper.records()
    assert base64.b64decode(record["lease"]["options"]["51"]) in ((120).to_bytes(4, "big"), (150).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("ipam", "complaint"),
    [
        ({"provide": [{"option": "50", "value": "10.55"}]}, "ipam.provide[0]: option 50: Expected 4 octets"),
        ({"provide": [{"option": "51", "value": "1h"}]}, 'ipam.provide[0]: option 51: "1h" is no number of seconds'),
        ({"provide": [{"option": "colour", "value": "red"}]}, 'ipam.provide[0]: "colour" is no DHCP option'),
        ({"provide": [{"option": "53", "value": "x"}]}, "is the business of the DHCP client itself"),
        ({"provide": [{"option": "60", "value": "x" * 256}]}, "the value of option 60 has 256 bytes"),
        ({"request": [{"option": "12"}, {"option": "256"}]}, 'ipam.request[1]: "256" is no DHCP option'),
        ({"request": [{"option": 121}]}, "request"),
        ({"priority": -1}, "priority"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(
    bridge: BridgeOf, host: Any, ipam: dict[str, Any], complaint: str
) -> None:
    host.run("ip link add lan0 type bridge")
    runtime = bridge(**ipam)
    with pytest.raises(CniError) as refused:
        runtime.add()
    assert refused.value.code == 7
    assert complaint in refused.value.msg
    runtime.delete()


def test_validate_names_every_wrong_option() -> None:
    config = DhcpConfig.read(
        {
            "ipam": {
                "type": "dhcp",
                "request": [{"option": "x"}, {"skipDefault": True}],
                "provide": [{"option": "54"}, {"option": "60", "value": "v" * 300}],
            }
        }
    )
    places = [complaint.partition(":")[0] for complaint in config.complaints()]
    assert places == ["ipam.request[0].option", "ipam.provide[0].option", "ipam.provide[1].value"]


def test_check_finds_what_is_wrong(lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container) -> None:
    lan.isc()
    runtime = bridge()
    result = runtime.add()
    runtime.check()
    wrong = json.loads(json.dumps(result))
    wrong["ips"][0]["address"] = "10.55.0.7/24"
    runtime.result = wrong
    with pytest.raises(CniError, match="eth0 has a DHCP lease of 10.55.0.1"):
        runtime.check()
    runtime.result = result
    keeper.stop()
    with pytest.raises(CniError, match="error dialing DHCP daemon"):
        runtime.check()
    for path in keeper.leases.glob("*.json"):
        path.unlink()
    keeper.start()
    with pytest.raises(CniError, match=f"no DHCP lease for eth0 of container {container.id}"):
        runtime.check()


def test_check_notices_that_the_lease_is_for_another_namespace(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    lan.isc()
    runtime = bridge(to=containers[0])
    runtime.add()
    runtime.container.id, other = runtime.container.id, PluginRunner("dhcp", containers[1], ipam=runtime.config["ipam"])
    containers[1].id = containers[0].id
    other.result = runtime.result
    with pytest.raises(CniError, match="is for the interface of another namespace"):
        other.check()


def test_status_says_that_no_keeper_runs(no_keeper: Keeper, bridge: BridgeOf) -> None:
    runtime = bridge()
    with pytest.raises(CniError, match="error dialing DHCP daemon") as unready:
        runtime.status()
    assert unready.value.code == 50
    assert "pycni serve" in unready.value.details
    no_keeper.start()
    runtime.status()


def test_gc_gives_back_what_is_not_valid(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    lan.isc()
    stale, valid, foreign = (bridge(to=container) for container in containers)
    foreign.config["name"] = "other"
    for runtime in (stale, valid, foreign):
        runtime.add()
    address = stale.result["ips"][0]["address"].partition("/")[0]
    stale.gc(valid)
    assert sorted(record["client"]["containerId"] for record in keeper.records()) == sorted(
        runtime.container.id for runtime in (valid, foreign)
    )
    wait_for(lambda: f"DHCPRELEASE of {address}" in lan.said(), "the release")


def test_the_same_add_again_has_the_same_lease(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: a repeated ADD reuses the lease (DH-31)."""
    lan.isc()
    runtime = bridge()
    first = runtime.add()
    alone = PluginRunner("dhcp", container, ipam=runtime.config["ipam"])
    again = alone.add()
    assert again["ips"][0]["address"] == first["ips"][0]["address"]
    assert lan.said().count("DHCPDISCOVER") <= 2
    assert len(keeper.records()) == 1


def test_many_containers_at_once(lan: Lan, keeper: Keeper, bridge: BridgeOf, host: Any) -> None:
    lan.isc()
    made = [Container(host) for _ in range(12)]
    runtimes = [bridge(to=one) for one in made]

    def add(runtime: PluginRunner) -> str:
        host.netns.enter_permanently()
        return str(runtime.add()["ips"][0]["address"])

    with ThreadPoolExecutor(12) as pool:
        addresses = list(pool.map(add, runtimes))
    assert len(set(addresses)) == 12
    for runtime in runtimes:
        runtime.check()
        runtime.delete()
    assert keeper.records() == []
    for one in made:
        one.close()


def test_a_macvlan_gets_an_address_too(lan: Lan, keeper: Keeper, host: Any, container: Container) -> None:
    lan.isc()
    host.run(f"ip link add link {BRIDGE} name mv0 type macvlan mode bridge")
    host.run(f"ip link set mv0 netns {container.path} name eth0")
    runtime = PluginRunner("dhcp", container, ipam={"type": "dhcp", "daemonSocketPath": str(keeper.socket)})
    address = runtime.add()["ips"][0]["address"]
    runtime.check()
    container.run(f"ip addr add {address} dev eth0")
    assert container.pings("10.55.0.1")
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")


def test_macvlan_gets_announces_and_returns_a_lease(lan: Lan, keeper: Keeper, container: Container) -> None:
    lan.isc()
    ipam = {"type": "dhcp", "daemonSocketPath": str(keeper.socket)}
    runtime = PluginRunner("macvlan", container, master=BRIDGE, ipam=ipam)
    with lan.router.netns.entered():
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with heard:
        heard.settimeout(0.05)
        address = runtime.add()["ips"][0]["address"].partition("/")[0]

        def announced() -> bool:
            try:
                frame = heard.recv(2048)
            except TimeoutError:
                return False
            return frame[28:32] == frame[38:42] == socket.inet_aton(address)

        wait_for(announced, "a gratuitous ARP")
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "1"
    assert container.pings("10.55.0.1")
    runtime.check()
    runtime.delete()
    assert keeper.records() == []
    wait_for(lambda: f"DHCPRELEASE of {address}" in lan.said(), "the release")


def test_an_add_without_a_server_says_so(lan: Lan, no_keeper: Keeper, bridge: BridgeOf) -> None:
    no_keeper.start("-timeout=300ms", "-resendtimeout", "500ms")
    runtime = bridge()
    with pytest.raises(CniError, match="no more tries: no DHCP lease for eth0 within 0.5 s: no server has answered"):
        runtime.add()
    assert no_keeper.records() == []
    runtime.delete()


def test_a_lease_without_a_mask_is_none(lan: Lan, no_keeper: Keeper, bridge: BridgeOf) -> None:
    no_keeper.start("-timeout=1s", "-resendtimeout", "1s")
    lan.dnsmasq("--dhcp-option=1")
    with pytest.raises(CniError, match="DHCP option Subnet Mask not found in DHCPACK"):
        bridge().add()


@pytest.mark.direct
def test_a_path_that_is_relative_to_the_caller_is_none_for_the_keeper(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a directory of its own (DH-05)."""
    lan.isc()
    runtime = bridge()
    monkeypatch.chdir("/proc")
    runtime.netns = container.path.removeprefix("/proc/")
    assert not runtime.netns.startswith("/")
    runtime.add()
    (record,) = keeper.records()
    assert record["client"]["netns"] == container.path
    runtime.delete()
    assert keeper.records() == []


def test_the_interface_is_not_there(lan: Lan, keeper: Keeper, container: Container) -> None:
    runtime = PluginRunner("dhcp", container, ipam={"type": "dhcp", "daemonSocketPath": str(keeper.socket)})
    with pytest.raises(CniError, match='link "eth0" not found'):
        runtime.add()
    runtime.delete()
