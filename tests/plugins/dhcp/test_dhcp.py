"""dhcp: leases from real servers, and every option."""

import base64
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.dhcp.config import DhcpConfig

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner, wait_for
from tests.conftest import run_concurrently

from .conftest import BRIDGE, CreateBridgeRunner, Lan, LeaseDaemon, addresses_of

# Option 121 as dhcpd writes it: 10.99.0.0/16 via 10.55.0.2, 10.98.1.0/24 on-link, the default route via 10.55.0.3.
CLASSLESS = "option classless 16,10,99,10,55,0,2, 24,10,98,1,0,0,0,0, 0,10,55,0,3;"


def test_lease_is_acquired_used_and_released(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc()
    runner = bridge()
    result = runner.add()
    (ip,) = result["ips"]
    assert ip == {"address": ip["address"], "gateway": "10.55.0.1", "interface": 2}
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.55.0.1"}]
    assert addresses_of(container) == [ip["address"]]
    assert container.pings("10.55.0.1")
    runner.check()
    runner.delete()
    assert lease_daemon.records() == []
    wait_for(lambda: f"DHCPRELEASE of {ip['address'].partition('/')[0]}" in lan.log_text(), "the release")


def test_example_of_the_readme(lan: Lan, lease_daemon: LeaseDaemon, container: Container) -> None:
    text = (Path(__file__).parents[3] / "plugins" / "dhcp" / "README.md").read_text()
    document = json.loads(text.partition("```json")[2].partition("```")[0])
    lan.isc("option interface-mtu 1400;", CLASSLESS)
    plugin = document.pop("type")
    document["ipam"]["daemonSocketPath"] = str(lease_daemon.socket)
    runner = PluginRunner(plugin, container, **document)
    assert [route["dst"] for route in runner.add()["routes"]] == ["10.99.0.0/16", "10.98.1.0/24", "0.0.0.0/0"]
    runner.check()
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")


def test_lease_is_acquired_from_dnsmasq_and_released(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.dnsmasq()
    runner = bridge()
    address = runner.add()["ips"][0]["address"]
    assert addresses_of(container) == [address]
    runner.delete()
    wait_for(lambda: f"DHCPRELEASE(eth0) {address.partition('/')[0]}" in lan.log_text(), "the release")


def test_client_id_is_the_same_as_the_go_plugins(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.dnsmasq()
    bridge().add()
    client_id = b"\0" + f"{container.id}/test/eth0".encode()
    leases = (lan.directory / "dnsmasq.leases").read_text()
    assert leases.split()[-1] == client_id.hex(":")
    (record,) = lease_daemon.records()
    assert record["client"]["containerId"] == container.id


def test_dns_and_ntp_servers_of_the_lease_are_in_the_result(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
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


def test_skip_default_requests_only_the_named_options(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.dnsmasq("--dhcp-option=6,10.55.0.53")
    result = bridge(request=[{"skipDefault": True, "option": "subnet-mask"}]).add()
    assert "dns" not in result or not result["dns"]
    assert "routes" not in result
    assert "requested options: 1:netmask\n" in lan.log_text()


def test_default_options_are_requested_if_none_is_named(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    """An empty parameter request list is malformed. The Go plugin also requests defaults in this case."""
    lan.dnsmasq("--dhcp-option=6,10.55.0.53")
    result = bridge(request=[{"skipDefault": True}]).add()
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.55.0.1"}]
    assert result["dns"]["nameservers"] == ["10.55.0.53"]
    assert "requested options: 1:netmask, 3:router, 15:domain-name, 6:dns-server\n" in lan.log_text()


def test_requested_options_come_first_and_may_be_names_or_numbers(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.dnsmasq()
    bridge(request=[{"option": "121"}, {"option": "interface-mtu"}, {"option": "routers"}]).add()
    lines = ", ".join(re.findall(r"requested options: (.*)", lan.log_text())).split(", ")
    numbers = [int(part.partition(":")[0]) for part in lines if part][:8]
    assert numbers == [121, 26, 3, 1, 6, 15, 119, 42]


def test_requested_mtu_of_the_lease_is_set_on_the_interface(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc("option interface-mtu 1380;")
    result = bridge(request=[{"option": "interface-mtu"}]).add()
    assert "mtu 1380 " in container.run("ip link show eth0")
    assert [interface.get("mtu") for interface in result["interfaces"]] == [None, None, 1380]


def test_mtu_that_was_not_requested_is_ignored(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc("option interface-mtu 1380;")
    bridge().add()
    assert "mtu 1500 " in container.run("ip link show eth0")


def test_classless_routes_replace_all_other_routes(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc(CLASSLESS, "option static-routes 10.97.0.0 10.55.0.4;")
    runner = bridge(request=[{"option": "121"}, {"option": "33"}], priority=50)
    result = runner.add()
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
    runner.check()


def test_static_routes_have_classful_masks(lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    lan.isc("option static-routes 10.0.0.0 10.55.0.2, 172.16.0.0 10.55.0.3, 192.168.7.0 10.55.0.4;")
    assert bridge(request=[{"option": "static-routes"}]).add()["routes"] == [
        {"dst": "10.0.0.0/8", "gw": "10.55.0.2"},
        {"dst": "172.16.0.0/16", "gw": "10.55.0.3"},
        {"dst": "192.168.7.0/24", "gw": "10.55.0.4"},
        {"dst": "0.0.0.0/0", "gw": "10.55.0.1"},
    ]


def test_provided_options_are_sent_to_the_server(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.dnsmasq()
    runner = bridge(
        provide=[
            {"option": "host-name", "fromArg": "K8S_POD_NAME"},
            {"option": "60", "value": "acme-vendor"},
            {"option": "user-class", "value": "gold"},
            {"option": "12", "fromArg": "ABSENT"},
        ]
    )
    runner.cni_args = "IgnoreUnknown=1;K8S_POD_NAME=web-0"
    runner.add()
    log_text = lan.log_text()
    assert "client provides name: web-0" in log_text
    assert "vendor class: acme-vendor" in log_text
    assert "user class: gold" in log_text


@pytest.mark.parametrize(
    ("cni_args", "provided"),
    [({"K": "arg"}, {12: b"arg", 77: b"arg"}), ({}, {12: b"value"}), ({"K": ""}, {}), ({"k": "arg"}, {12: b"value"})],
)
def test_value_from_cni_args_takes_precedence_over_the_configured_value(
    cni_args: dict[str, str], provided: dict[int, bytes]
) -> None:
    provide = [{"option": "host-name", "value": "value", "fromArg": "K"}, {"option": "77", "fromArg": "K"}]
    assert DhcpConfig.read({"ipam": {"type": "dhcp", "provide": provide}}).provided_options(cni_args) == provided


def test_client_id_can_be_provided(lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    lan.dnsmasq()
    runner = bridge(provide=[{"option": "dhcp-client-identifier", "value": "my-client"}])
    runner.add()
    assert (lan.directory / "dnsmasq.leases").read_text().split()[-1] == b"my-client".hex(":")
    runner.delete()
    wait_for(lambda: not (lan.directory / "dnsmasq.leases").read_text(), "the release with the same client ID")


def test_address_and_lease_time_can_be_requested(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    """Go: the value of each option is sent as text, whatever its type."""
    lan.dnsmasq()
    requested = [
        {"option": "dhcp-requested-address", "fromArg": "IP"},
        {"option": "dhcp-lease-time", "value": "150"},
    ]
    runner = bridge(provide=requested, request=[{"option": "51"}])
    runner.cni_args = "IgnoreUnknown=1;IP=10.55.0.142"
    assert runner.add()["ips"][0]["address"] == "10.55.0.142/24"
    (record,) = lease_daemon.records()
    assert base64.b64decode(record["lease"]["options"]["51"]) in ((120).to_bytes(4, "big"), (150).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("ipam", "complaint"),
    [
        ({"provide": [{"option": "50", "value": "10.55"}]}, "ipam.provide[0]: option 50: Expected 4 octets"),
        ({"provide": [{"option": "51", "value": "1h"}]}, 'ipam.provide[0]: option 51: "1h" is not a number of seconds'),
        ({"provide": [{"option": "colour", "value": "red"}]}, 'ipam.provide[0]: "colour" is not a DHCP option'),
        ({"provide": [{"option": "53", "value": "x"}]}, "cannot be provided: the DHCP client sets it itself"),
        ({"provide": [{"option": "60", "value": "x" * 256}]}, "the value of option 60 has 256 bytes"),
        ({"request": [{"option": "12"}, {"option": "256"}]}, 'ipam.request[1]: "256" is not a DHCP option'),
        ({"request": [{"option": 121}]}, "request"),
        ({"priority": -1}, "priority"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option(
    bridge: CreateBridgeRunner, host: Any, ipam: dict[str, Any], complaint: str
) -> None:
    host.run("ip link add lan0 type bridge")
    runner = bridge(**ipam)
    with pytest.raises(CniError) as refused:
        runner.add()
    assert refused.value.code == 7
    assert complaint in refused.value.msg
    runner.delete()


def test_validate_reports_every_invalid_option() -> None:
    config = DhcpConfig.read(
        {
            "ipam": {
                "type": "dhcp",
                "request": [{"option": "x"}, {"skipDefault": True}],
                "provide": [{"option": "54"}, {"option": "60", "value": "v" * 300}],
            }
        }
    )
    places = [complaint.partition(":")[0] for complaint in config.problems()]
    assert places == ["ipam.request[0].option", "ipam.provide[0].option", "ipam.provide[1].value"]


def test_check_fails_with_a_wrong_address_without_the_daemon_and_without_a_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc()
    runner = bridge()
    result = runner.add()
    runner.check()
    wrong = json.loads(json.dumps(result))
    wrong["ips"][0]["address"] = "10.55.0.7/24"
    runner.result = wrong
    with pytest.raises(CniError, match="eth0 has a DHCP lease of 10.55.0.1"):
        runner.check()
    runner.result = result
    lease_daemon.stop()
    with pytest.raises(CniError, match="error dialing DHCP daemon"):
        runner.check()
    for path in lease_daemon.leases.glob("*.json"):
        path.unlink()
    lease_daemon.start()
    with pytest.raises(CniError, match=f"no DHCP lease for eth0 of container {container.id}"):
        runner.check()


def test_check_fails_if_the_lease_is_for_another_namespace(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    lan.isc()
    runner = bridge(to=containers[0])
    runner.add()
    runner.container.id, other = runner.container.id, PluginRunner("dhcp", containers[1], ipam=runner.config["ipam"])
    containers[1].id = containers[0].id
    other.result = runner.result
    with pytest.raises(CniError, match="belongs to another network namespace"):
        other.check()


def test_status_fails_with_code_50_without_a_daemon(stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    runner = bridge()
    with pytest.raises(CniError, match="error dialing DHCP daemon") as unready:
        runner.status()
    assert unready.value.code == 50
    assert "pycni serve" in unready.value.details
    stopped_daemon.start()
    runner.status()


def test_gc_releases_leases_without_a_valid_attachment(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    lan.isc()
    stale, valid, other_network = (bridge(to=container) for container in containers)
    other_network.config["name"] = "other"
    for runner in (stale, valid, other_network):
        runner.add()
    address = stale.result["ips"][0]["address"].partition("/")[0]
    stale.gc(valid)
    assert sorted(record["client"]["containerId"] for record in lease_daemon.records()) == sorted(
        runner.container.id for runner in (valid, other_network)
    )
    wait_for(lambda: f"DHCPRELEASE of {address}" in lan.log_text(), "the release")


def test_repeated_add_reuses_the_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: it does the same."""
    lan.isc()
    runner = bridge()
    first = runner.add()
    repeated = PluginRunner("dhcp", container, ipam=runner.config["ipam"])
    result = repeated.add()
    assert result["ips"][0]["address"] == first["ips"][0]["address"]
    assert lan.log_text().count("DHCPDISCOVER") <= 2
    assert len(lease_daemon.records()) == 1


def test_concurrent_adds_get_distinct_addresses(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, host: Any
) -> None:
    lan.isc()
    made = [Container(host) for _ in range(12)]
    runners = [bridge(to=one) for one in made]
    results = run_concurrently(host, PluginRunner.add, runners)
    addresses = [result["ips"][0]["address"] for result in results]
    assert len(set(addresses)) == 12
    for runner in runners:
        runner.check()
        runner.delete()
    assert lease_daemon.records() == []
    for one in made:
        one.close()


def test_lease_is_acquired_for_an_existing_macvlan_link(
    lan: Lan, lease_daemon: LeaseDaemon, host: Any, container: Container
) -> None:
    lan.isc()
    host.run(f"ip link add link {BRIDGE} name mv0 type macvlan mode bridge")
    host.run(f"ip link set mv0 netns {container.path} name eth0")
    runner = PluginRunner("dhcp", container, ipam={"type": "dhcp", "daemonSocketPath": str(lease_daemon.socket)})
    address = runner.add()["ips"][0]["address"]
    runner.check()
    container.run(f"ip addr add {address} dev eth0")
    assert container.pings("10.55.0.1")
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")


def test_macvlan_acquires_announces_and_releases_a_lease(
    lan: Lan, lease_daemon: LeaseDaemon, container: Container
) -> None:
    lan.isc()
    ipam = {"type": "dhcp", "daemonSocketPath": str(lease_daemon.socket)}
    runner = PluginRunner("macvlan", container, master=BRIDGE, ipam=ipam)
    with lan.router.netns.enter():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with sniffer:
        sniffer.settimeout(0.05)
        address = runner.add()["ips"][0]["address"].partition("/")[0]

        def announced() -> bool:
            try:
                frame = sniffer.recv(2048)
            except TimeoutError:
                return False
            return frame[28:32] == frame[38:42] == socket.inet_aton(address)

        wait_for(announced, "the gratuitous ARP")
    assert container.run("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "1"
    assert container.pings("10.55.0.1")
    runner.check()
    runner.delete()
    assert lease_daemon.records() == []
    wait_for(lambda: f"DHCPRELEASE of {address}" in lan.log_text(), "the release")


def test_add_fails_if_no_server_answers(lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    stopped_daemon.start("-timeout=300ms", "-resendtimeout", "500ms")
    runner = bridge()
    with pytest.raises(CniError, match="no more tries: no DHCP lease for eth0 within 0.5 s: no server has answered"):
        runner.add()
    assert stopped_daemon.records() == []
    runner.delete()


def test_add_fails_if_the_lease_has_no_subnet_mask(
    lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    stopped_daemon.start("-timeout=1s", "-resendtimeout", "1s")
    lan.dnsmasq("--dhcp-option=1")
    with pytest.raises(CniError, match="DHCP option Subnet Mask not found in DHCPACK"):
        bridge().add()


@pytest.mark.direct
def test_relative_netns_path_is_resolved_before_it_is_sent_to_the_daemon(
    lan: Lan,
    lease_daemon: LeaseDaemon,
    bridge: CreateBridgeRunner,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon's working directory differs from the caller's."""
    lan.isc()
    runner = bridge()
    monkeypatch.chdir("/proc")
    runner.netns = container.path.removeprefix("/proc/")
    assert not runner.netns.startswith("/")
    runner.add()
    (record,) = lease_daemon.records()
    assert record["client"]["netns"] == container.path
    runner.delete()
    assert lease_daemon.records() == []


def test_add_fails_if_the_interface_does_not_exist(lan: Lan, lease_daemon: LeaseDaemon, container: Container) -> None:
    runner = PluginRunner("dhcp", container, ipam={"type": "dhcp", "daemonSocketPath": str(lease_daemon.socket)})
    with pytest.raises(CniError, match='link "eth0" not found'):
        runner.add()
    runner.delete()
