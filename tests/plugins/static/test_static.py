"""static: where addresses and gateways come from, and what CHECK sees."""

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


def given(result: dict[str, Any]) -> list[str]:
    """Addresses, each with its gateway behind an arrow."""
    return [" > ".join(filter(None, (ip["address"], ip.get("gateway")))) for ip in result.get("ips", [])]


def test_it_leaves_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("static", container, ipam={"type": "static", **TWO}))


def test_add_answers_what_the_configuration_says(static: Call) -> None:
    assert static("ADD", ipam=TWO) == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "fd00::5/64"}],
        "routes": TWO["routes"],
        "dns": DNS,
    }


def test_without_addresses_the_result_is_empty(static: Call) -> None:
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
def test_addresses_come_from_four_places(
    static: Call, cni_args: str, config: dict[str, Any], expected: list[str]
) -> None:
    assert given(static("ADD", ipam=TWO, cni_args=cni_args, **config)) == expected


def test_r36_a_gateway_in_cni_args_reaches_every_address_in_whose_subnet_it_lies(static: Call) -> None:
    """In Go's plugin it reaches only those that CNI_ARGS names too."""
    result = static("ADD", ipam=TWO, cni_args="GATEWAY=10.10.0.200,fd00::1,192.168.0.1")
    assert given(result) == ["10.10.0.1/24 > 10.10.0.200", "fd00::5/64 > fd00::1"]
    asked = {"ips": ["10.30.0.5/24"]}
    result = static("ADD", ipam=TWO, cni_args="GATEWAY=10.30.0.1", runtimeConfig=asked)
    assert given(result) == ["10.30.0.5/24 > 10.30.0.1"]


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
def test_what_cannot_be_understood_is_refused(
    static: Call, ipam: dict[str, Any], cni_args: str, config: dict[str, Any], code: int, msg: str
) -> None:
    with pytest.raises(CniError) as caught:
        static("ADD", ipam=ipam, cni_args=cni_args, **config)
    assert (caught.value.code, caught.value.msg) == (code, msg)


def test_two_addresses_of_a_family_need_a_newer_version(static: Call) -> None:
    addresses = [{"address": "10.10.0.1/24"}, {"address": "10.10.0.2/24"}]
    assert given(static("ADD", ipam={"addresses": addresses}, cniVersion="0.3.0")) == ["10.10.0.1/24", "10.10.0.2/24"]


def test_check_accepts_what_add_answered_and_gateways_that_others_added(static: Call) -> None:
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
def test_r36_check_notices_absent_addresses_and_other_gateways(
    static: Call, ips: list[dict[str, str]], address: str, details: str
) -> None:
    """Go's plugin takes an address that is not there for one that is right."""
    with pytest.raises(CniError) as caught:
        static("CHECK", ipam=TWO, prevResult={"cniVersion": "1.1.0", "ips": ips})
    assert caught.value.msg == f"static: Failed to match addr {address} on interface eth0"
    assert caught.value.details == details


def test_check_needs_the_previous_result(static: Call) -> None:
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
def test_validate_names_every_wrong_address(addresses: list[dict[str, str]], complaints: list[str]) -> None:
    config = StaticConfig.read({"cniVersion": "0.2.0", "ipam": {"type": "static", "addresses": addresses}})
    assert [complaint.partition(";")[0] for complaint in config.complaints()] == complaints


def test_status_tells_of_a_wrong_configuration(static: Call) -> None:
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
