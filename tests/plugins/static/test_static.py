"""static: the sources of addresses and gateways, and what CHECK compares."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pycni_plugins.static.plugin import StaticConfig

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner, check_lifecycle

Call = Callable[..., Any]
DNS = {"nameservers": ["8.8.8.8"], "domain": "x", "search": ["y"], "options": ["z"]}
TWO = {
    "addresses": [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "fd00::5/64"}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1", "mtu": 1400}],
    "dns": DNS,
}


def allocated(result: dict[str, Any]) -> list[str]:
    """Return the addresses of a result, each followed by " > " and its gateway if it has one."""
    return [" > ".join(filter(None, (ip["address"], ip.get("gateway")))) for ip in result.get("ips", [])]


def test_add_check_and_del_leave_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("static", container, ipam={"type": "static", **TWO}))


def test_add_returns_the_addresses_routes_and_dns_of_the_configuration(static: Call) -> None:
    assert static("ADD", ipam=TWO) == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "fd00::5/64"}],
        "routes": TWO["routes"],
        "dns": DNS,
    }


def test_result_is_empty_without_addresses(static: Call) -> None:
    assert static("ADD") == {"cniVersion": "1.1.0"}


@pytest.mark.parametrize(
    ("cni_args", "config", "expected"),
    [
        (
            "IP=10.10.0.9/24",
            {},
            ["10.10.0.1/24 > 10.10.0.254", "fd00::5/64", "10.10.0.9/24"],
        ),
        (
            "IP=10.20.0.9/24, fd01::9/64;GATEWAY=10.20.0.1,fd01::1",
            {},
            ["10.10.0.1/24 > 10.10.0.254", "fd00::5/64", "10.20.0.9/24 > 10.20.0.1", "fd01::9/64 > fd01::1"],
        ),
        ("IP=;GATEWAY=", {}, ["10.10.0.1/24 > 10.10.0.254", "fd00::5/64"]),
        ("IP=10.10.0.9/24", {"args": {"cni": {"ips": ["10.10.0.50/24"]}}}, ["10.10.0.50/24"]),
        (
            "IP=10.10.0.9/24",
            {"args": {"cni": {"ips": ["10.10.0.50/24"]}}, "runtimeConfig": {"ips": ["10.10.0.60/24", "fd00::60/64"]}},
            ["10.10.0.60/24", "fd00::60/64"],
        ),
        ("IgnoreUnknown=1;K8S_POD_NAME=p", {}, ["10.10.0.1/24 > 10.10.0.254", "fd00::5/64"]),
    ],
)
def test_addresses_come_from_the_configuration_cni_args_args_or_runtime_config(
    static: Call, cni_args: str, config: dict[str, Any], expected: list[str]
) -> None:
    assert allocated(static("ADD", ipam=TWO, cni_args=cni_args, **config)) == expected


def test_gateway_in_cni_args_applies_to_every_address_of_its_subnet(static: Call) -> None:
    """Go: it applies only to addresses that CNI_ARGS also names."""
    result = static("ADD", ipam=TWO, cni_args="GATEWAY=10.10.0.200,fd00::1,192.168.0.1")
    assert allocated(result) == ["10.10.0.1/24 > 10.10.0.200", "fd00::5/64 > fd00::1"]
    runtime_config = {"ips": ["10.30.0.5/24"]}
    result = static("ADD", ipam=TWO, cni_args="GATEWAY=10.30.0.1", runtimeConfig=runtime_config)
    assert allocated(result) == ["10.30.0.5/24 > 10.30.0.1"]


@pytest.mark.parametrize(
    ("ipam", "cni_args", "config", "code", "msg"),
    [
        (
            {"addresses": [{"address": "10.10.0.1"}]},
            "",
            {},
            7,
            "the 'address' field is expected to be in CIDR notation, got: '10.10.0.1'",
        ),
        (
            {"addresses": [{}]},
            "",
            {},
            7,
            "the 'address' field is expected to be in CIDR notation, got: ''",
        ),
        (
            {"addresses": [{"address": "10.10.0.1/24", "gateway": "x"}]},
            "",
            {},
            7,
            "failed to load netconf: ipam.addresses[0].gateway: invalid IP address: x",
        ),
        ({}, "IP=10.10.0.9", {}, 999, "the 'ip' field is expected to be in CIDR notation, got: '10.10.0.9'"),
        ({}, "GATEWAY=bogus", {}, 999, "invalid gateway address: bogus"),
        ({}, "FOO=1", {}, 999, 'ARGS: unknown args ["FOO=1"]'),
        (
            {},
            "",
            {"runtimeConfig": {"ips": ["10.10.0.60"]}},
            7,
            "an entry in the 'ips' field is NOT in CIDR notation, got: '10.10.0.60'",
        ),
        (
            {},
            "",
            {"args": {"cni": {"ips": ["10.10.0.60"]}}},
            7,
            "an entry in the 'ips' field is NOT in CIDR notation, got: '10.10.0.60'",
        ),
        (
            {"addresses": [{"address": "10.10.0.1/24"}, {"address": "10.10.0.2/24"}]},
            "",
            {"cniVersion": "0.2.0"},
            7,
            "CNI version 0.2.0 does not support more than 1 address per family",
        ),
        (
            {"addresses": "10.10.0.1/24"},
            "",
            {},
            7,
            'failed to load netconf: ipam.addresses: Input should be a valid array, not "10.10.0.1/24"',
        ),
    ],
)
def test_invalid_addresses_and_gateways_are_refused(
    static: Call, ipam: dict[str, Any], cni_args: str, config: dict[str, Any], code: int, msg: str
) -> None:
    with pytest.raises(CniError) as caught:
        static("ADD", ipam=ipam, cni_args=cni_args, **config)
    assert (caught.value.code, caught.value.msg) == (code, msg)


def test_two_addresses_of_a_family_are_accepted_since_0_3_0(static: Call) -> None:
    addresses = [{"address": "10.10.0.1/24"}, {"address": "10.10.0.2/24"}]
    assert allocated(static("ADD", ipam={"addresses": addresses}, cniVersion="0.3.0")) == [
        "10.10.0.1/24",
        "10.10.0.2/24",
    ]


def test_check_accepts_the_result_of_add_and_gateways_added_by_other_plugins(static: Call) -> None:
    result = static("ADD", ipam=TWO)
    static("CHECK", ipam=TWO, prevResult=result)
    result["ips"][1]["gateway"] = "fd00::1"
    static("CHECK", ipam=TWO, prevResult=result)


@pytest.mark.parametrize(
    ("ips", "address", "details"),
    [
        (
            [{"address": "10.10.0.1/24", "gateway": "10.10.0.1"}, {"address": "fd00::5/64"}],
            "10.10.0.1",
            "the gateway in prevResult is 10.10.0.1, expected 10.10.0.254",
        ),
        (
            [{"address": "10.10.0.1/24"}, {"address": "fd00::5/64"}],
            "10.10.0.1",
            "the gateway in prevResult is missing, expected 10.10.0.254",
        ),
        (
            [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}],
            "fd00::5",
            "prevResult does not contain fd00::5/64; it contains 10.10.0.1/24",
        ),
        ([], "10.10.0.1", "prevResult does not contain 10.10.0.1/24; it contains no addresses"),
    ],
)
def test_check_fails_if_an_address_is_missing_or_its_gateway_differs(
    static: Call, ips: list[dict[str, str]], address: str, details: str
) -> None:
    """Go: CHECK accepts a missing address."""
    with pytest.raises(CniError) as caught:
        static("CHECK", ipam=TWO, prevResult={"cniVersion": "1.1.0", "ips": ips})
    assert caught.value.msg == f"static: Failed to match addr {address} on interface eth0"
    assert caught.value.details == details


def test_check_requires_prev_result(static: Call) -> None:
    with pytest.raises(CniError, match="Required prevResult missing"):
        static("CHECK", ipam=TWO)


@pytest.mark.parametrize("ipam", [TWO, {}, {"addresses": [{"address": "bogus"}]}, {"addresses": 5}])
def test_del_and_gc_always_succeed(static: Call, ipam: dict[str, Any]) -> None:
    assert static("DEL", ipam=ipam, cni_args="FOO;=;") is None
    if ipam.get("addresses") != 5:
        assert static("GC", ipam=ipam, **{"cni.dev/valid-attachments": []}) is None


@pytest.mark.parametrize(
    ("addresses", "complaints"),
    [
        (
            [{"address": "10.1.0.2"}, {"address": "10.1.0.2/24", "gateway": "x"}, {"address": "10.1.0.3/24"}],
            ["ipam.addresses[0]: invalid CIDR address: 10.1.0.2", "ipam.addresses[1]: invalid IP address: x"],
        ),
        (
            [{"address": "10.1.0.2/24"}, {"address": "10.1.0.3/24"}],
            ["ipam: CNI version 0.2.0 does not support more than 1 address per family"],
        ),
        ([{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00::2/64"}], []),
    ],
)
def test_validate_reports_every_invalid_address(addresses: list[dict[str, str]], complaints: list[str]) -> None:
    config = StaticConfig.read({"cniVersion": "0.2.0", "ipam": {"type": "static", "addresses": addresses}})
    assert [complaint.partition(";")[0] for complaint in config.problems()] == complaints


def test_status_fails_with_an_invalid_configuration(static: Call) -> None:
    assert static("STATUS", ipam=TWO) is None
    with pytest.raises(CniError, match="CIDR notation"):
        static("STATUS", ipam={"addresses": [{"address": "bogus"}]})


def test_no_verb_loads_pyroute2() -> None:
    script = """
import json, sys
from pycni.sdk.dispatch import handle_call
from pycni_plugins.static.plugin import Static
config = {"cniVersion": "1.1.0", "name": "n", "type": "x", "cni.dev/valid-attachments": [],
          "prevResult": {"ips": [{"address": "10.1.0.2/24"}]},
          "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}
env = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/x", "CNI_PATH": "/x"}
for command in ("ADD", "CHECK", "STATUS", "DEL", "GC"):
    reply = handle_call("static", Static, env | {"CNI_COMMAND": command}, json.dumps(config).encode(), None)
    assert reply.status == 0, reply
print("pyroute2" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
