"""bandwidth: the effect of each option, seen in the kernel's state and in traffic."""

import socket
import time
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for

IPAM = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
GATEWAYS, ADDRESSES = {4: "10.1.0.1", 6: "fd00:1::1"}, {4: "10.1.0.2", 6: "fd00:1::2"}
KBIT8 = 8000  # bit/s, or 1000 bytes/s
FRAMES, FRAME = 100, 1000  # far more than the bursts below
UNLIMITED = [4294967295, 34359738359]  # bits; containerd and others send these for an unlimited burst


def bridge_result(container: Container, ifname: str = "eth0", **config: Any) -> dict[str, Any]:
    """Call ADD of bridge and return its result."""
    return PluginRunner(
        "bridge", container, ifname=ifname, **{"bridge": "br0", "isGateway": True, "ipam": IPAM, **config}
    ).add()


def bandwidth_runner(container: Container, **config: Any) -> PluginRunner:
    """Return a runner for bandwidth after the ADD of bridge."""
    return PluginRunner("bandwidth", container, prevResult=bridge_result(container), **config)


def port_of(runner: PluginRunner) -> str:
    return runner.owner.host_ifname


def ifb_of(runner: PluginRunner) -> str:
    assert runner.result is not None
    return str(runner.result["interfaces"][-1]["name"])


def tbf(host: Host, device: str) -> dict[str, Any]:
    """Return the tbf qdisc of a device with its counters."""
    (found,) = [qdisc for qdisc in host.json(f"tc -s -j qdisc show dev {device}") if qdisc["kind"] == "tbf"]
    return dict(found)


def flood(sender: Host | Container, address: str, frames: int) -> None:
    """Send `frames` frames of FRAME bytes of UDP without a pause."""
    with sender.netns.enter():
        socket_ = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    headers = 62 if ":" in address else 42
    with socket_:
        for _ in range(frames):
            socket_.sendto(bytes(FRAME - headers), (address, 9))


def assert_rate_limited(host: Host, device: str, flow: Any) -> None:
    """Assert that the device passes the traffic of `flow` up to the burst, then at most at the rate."""
    started = time.monotonic()
    before = tbf(host, device)
    flow()

    def arrived() -> bool:
        now = tbf(host, device)
        return bool(now["packets"] + now["drops"] + now["qlen"] >= before["packets"] + FRAMES)

    wait_for(arrived, f"{FRAMES} frames at {device}")
    now = tbf(host, device)
    elapsed = time.monotonic() - started
    assert now["drops"] > 0
    assert now["overlimits"] > 0
    assert now["bytes"] >= 16_000 - FRAME
    assert now["bytes"] - before["bytes"] <= 16_000 + elapsed * 1000


@pytest.mark.parametrize("version", [4, 6])
def test_ingress_limits_what_the_container_receives(host: Host, container: Container, version: int) -> None:
    runner = bandwidth_runner(container, ingressRate=KBIT8, ingressBurst=128_000)
    assert container.pings(GATEWAYS[version])
    runner.add()
    assert_rate_limited(host, port_of(runner), lambda: flood(host, ADDRESSES[version], FRAMES))


@pytest.mark.parametrize("version", [4, 6])
def test_egress_limits_what_the_container_sends(host: Host, container: Container, version: int) -> None:
    runner = bandwidth_runner(container, egressRate=KBIT8, egressBurst=128_000)
    assert container.pings(GATEWAYS[version])
    runner.add()
    assert_rate_limited(host, ifb_of(runner), lambda: flood(container, GATEWAYS[version], FRAMES))


@pytest.mark.parametrize("burst", UNLIMITED)
def test_unlimited_burst_passes_all_frames(host: Host, container: Container, burst: int) -> None:
    """Go: the burst overflows in the kernel's unit and becomes 4.3 seconds, here 4 of 100 frames."""
    limits = {"ingressRate": KBIT8, "ingressBurst": burst, "egressRate": KBIT8, "egressBurst": burst}
    runner = bandwidth_runner(container, runtimeConfig={"bandwidth": limits})
    assert container.pings(GATEWAYS[4])
    runner.add()
    runner.check()
    flood(host, ADDRESSES[4], FRAMES)
    flood(container, GATEWAYS[4], FRAMES)
    for device in (port_of(runner), ifb_of(runner)):
        wait_for(lambda device=device: tbf(host, device)["packets"] >= FRAMES, f"{FRAMES} frames sent by {device}")
        counters = tbf(host, device)
        assert (counters["drops"], counters["backlog"]) == (0, 0)


def test_rate_burst_and_latency_are_set_as_configured(host: Host, container: Container) -> None:
    runner = bandwidth_runner(
        container, ingressRate=1_000_000, ingressBurst=80_000, egressRate=2_000_000, egressBurst=160_000
    )
    runner.add()
    shown = host.run("tc qdisc show")
    assert f"qdisc tbf 1: dev {port_of(runner)} root refcnt 3 rate 1Mbit burst 10000b lat 25ms" in shown
    assert f"qdisc tbf 1: dev {ifb_of(runner)} root refcnt 2 rate 2Mbit burst 20000b lat 25ms" in shown


def test_rates_larger_than_32_bits(host: Host, container: Container) -> None:
    runner = bandwidth_runner(
        container, ingressRate=10**15, ingressBurst=UNLIMITED[0]
    )  # the maximum that kubelet allows
    runner.add()
    assert tbf(host, port_of(runner))["options"]["rate"] == 10**15 // 8
    runner.check()


def test_result_contains_the_ifb(host: Host, container: Container) -> None:
    runner = bandwidth_runner(container, egressRate=KBIT8, egressBurst=KBIT8)
    previous = runner.config["prevResult"]
    result = runner.add()
    (ifb,) = host.json("ip -j -d link show type ifb")
    assert result["interfaces"] == [*previous["interfaces"], {"name": ifb["ifname"], "mac": ifb["address"]}]
    assert result["ips"] == previous["ips"]
    assert (ifb["mtu"], ifb.get("txqlen", 0), "UP" in ifb["flags"]) == (1500, 0, True)
    assert ifb["ifalias"] == runner.owner.label


def test_egress_limit_adds_no_ingress_limit(host: Host, container: Container) -> None:
    runner = bandwidth_runner(container, egressRate=KBIT8, egressBurst=KBIT8)
    runner.add()
    assert [q["kind"] for q in host.json(f"tc -j qdisc show dev {port_of(runner)}")] == ["noqueue", "ingress"]


def test_ifb_has_the_mtu_of_the_veth_pair(host: Host, container: Container) -> None:
    previous_result = bridge_result(container, mtu=9000)
    PluginRunner("bandwidth", container, prevResult=previous_result, egressRate=KBIT8, egressBurst=800_000).add()
    (ifb,) = host.json("ip -j link show type ifb")
    assert ifb["mtu"] == 9000


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
        {"runtimeConfig": {"bandwidth": None}},
        {"ingressRate": 0, "runtimeConfig": {"bandwidth": {"egressRate": KBIT8, "egressBurst": KBIT8}}},
        {"ingressRate": 0, "runtimeConfig": {"bandwidth": {"egressRate": KBIT8}}},  # overridden, so not validated
    ],
)
def test_add_without_limits_changes_nothing(host: Host, container: Container, config: dict[str, Any]) -> None:
    """A rate of 0 in the configuration overrides the runtime's limits (docs/reference/plugins.md#bandwidth)."""
    runner = bandwidth_runner(container, **config)
    previous, before = runner.config["prevResult"], host.run("tc qdisc show; ip link")
    assert runner.add() == previous
    assert host.run("tc qdisc show; ip link") == before
    runner.check()
    runner.delete()


@pytest.mark.parametrize("key", ["ingressRate", "IngressRate", "INGRESSRATE"])
def test_keys_of_runtime_config_are_case_insensitive(host: Host, container: Container, key: str) -> None:
    limits = {key: KBIT8, "IngressBurst": KBIT8, "egressRate": None}
    runner = bandwidth_runner(container, runtimeConfig={"bandwidth": limits})
    runner.add()
    assert tbf(host, port_of(runner))["options"]["rate"] == 1000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ingressRate": 10}, "ingress: if rate is set, burst must also be set"),
        ({"egressBurst": 10}, "egress: if burst is set, rate must also be set"),
        ({"ingressRate": 10, "ingressBurst": 2**35 - 8}, "ingress: burst cannot be more than 4GB"),
        ({"ingressRate": 7, "ingressBurst": 80}, "rate 7 and burst 80 are in bits and must be at least 8"),
        ({"ingressRate": -1}, "ingressRate: Input should be greater than or equal to 0, not -1"),
        ({"ingressRate": "10M"}, 'ingressRate: Input should be a valid integer, not "10M"'),
        ({"runtimeConfig": {"bandwidth": {"egressRate": 8}}}, "egress: if rate is set, burst must also be set"),
    ],
)
def test_invalid_limits_are_refused(container: Container, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        PluginRunner("bandwidth", container, prevResult={"cniVersion": "1.1.0"}, **config).add()
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("previous", "message"),
    [
        ({}, "no interfaces provided"),
        ({"interfaces": [{"name": "zzz"}]}, "no veth peer of container interface found in host ns"),
    ],
)
def test_prev_result_without_the_host_interface_is_refused(
    container: Container, previous: dict[str, Any], message: str
) -> None:
    bridge_result(container)
    with pytest.raises(CniError, match=message):
        PluginRunner("bandwidth", container, prevResult=previous, ingressRate=800, ingressBurst=800).add()


def test_interface_that_is_not_a_veth_is_refused(host: Host, container: Container) -> None:
    host.run("ip link add up0 type bridge && ip link set up0 up")
    host.run(f"ip link add link up0 name mac0 type macvlan && ip link set mac0 netns {container.path} name eth0")
    previous = {"interfaces": [{"name": "eth0", "sandbox": container.path}]}
    with pytest.raises(CniError, match="container interface eth0 has no veth peer; its type is .macvlan."):
        PluginRunner("bandwidth", container, prevResult=previous, ingressRate=800, ingressBurst=800).add()


CHECKED = {"ingressRate": 80_000, "ingressBurst": 80_000, "egressRate": 160_000, "egressBurst": 160_000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tc qdisc change dev {port} root tbf rate 90kbit burst 10000b lat 25ms", "rate is 11250 bytes/s, not 10000"),
        ("tc qdisc change dev {port} root tbf rate 80kbit burst 30000b lat 25ms", "burst is 30000 bytes, not 10000"),
        ("tc qdisc change dev {port} root tbf rate 80kbit burst 10000b lat 50ms", "latency is 50 ms, not 25"),
        ("tc qdisc del dev {port} root", "not limited to 10000 bytes/s.*it has no qdisc tbf"),
        ("tc qdisc change dev {ifb} root tbf rate 90kbit burst 20000b lat 25ms", "rate is 11250 bytes/s, not 20000"),
        ("tc qdisc change dev {ifb} root tbf rate 160kbit burst 60000b lat 25ms", "burst is 60000 bytes, not 20000"),
        ("tc qdisc change dev {ifb} root tbf rate 160kbit burst 20000b lat 90ms", "latency is 90 ms, not 25"),
        ("tc qdisc del dev {ifb} root", "not limited to 20000 bytes/s"),
        ("tc filter del dev {port} ingress protocol all prio 1", "is not redirected to bwp"),
        ("tc qdisc del dev {port} ingress", "is not redirected to bwp"),
        ("ip link set {ifb} down", "should have up True"),
        ("ip link del {ifb}", "which limits what eth0 sends, does not exist"),
    ],
)
def test_check_reports_a_changed_limit(host: Host, container: Container, change: str, message: str) -> None:
    runner = bandwidth_runner(container, **CHECKED)
    runner.add()
    runner.check()
    host.run(change.format(port=port_of(runner), ifb=ifb_of(runner)))
    with pytest.raises(CniError, match=message):
        runner.check()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_check_reports_a_removed_limit_of_a_single_direction(host: Host, container: Container, direction: str) -> None:
    runner = bandwidth_runner(container, **{key: value for key, value in CHECKED.items() if key.startswith(direction)})
    runner.add()
    runner.check()
    host.run(f"tc qdisc del dev {port_of(runner) if direction == 'ingress' else ifb_of(runner)} root")
    with pytest.raises(CniError, match="it has no qdisc tbf"):
        runner.check()


def test_status_succeeds_and_changes_nothing(host: Host, container: Container) -> None:
    before = host.run("tc qdisc show; ip link")
    PluginRunner("bandwidth", container).status()
    assert host.run("tc qdisc show; ip link") == before


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_versions_without_plugin_chains_are_refused(container: Container, version: str) -> None:
    with pytest.raises(CniError, match="incompatible CNI versions") as caught:
        PluginRunner("bandwidth", container, cniVersion=version).add()
    assert caught.value.code == 1
