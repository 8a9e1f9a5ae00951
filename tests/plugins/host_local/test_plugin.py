"""host-local as a runtime calls it: every option, verb and error."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError

Call = Callable[..., Any]
DUAL = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
V4 = {"subnet": "10.1.0.0/24"}


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"] for ip in result["ips"]]


def reservations(store: Path) -> dict[str, str]:
    """Return the allocation files by name, with their content."""
    return {file.name: file.read_bytes().decode() for file in store.iterdir() if not file.name.startswith("l")}


def error_of(call: Call, *arguments: str, **config: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        call(*arguments, **config)
    return caught.value


def test_add_returns_one_address_per_range_set_with_gateways_routes_and_dns(host_local: Call, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 10.0.0.53\nsearch a.b c.d\noptions ndots:2\n")
    route = {
        "dst": "192.168.0.0/16",
        "gw": "10.1.0.6",
        "mtu": 1400,
        "priority": 7,
        "table": 9,
        "scope": 253,
        "advmss": 9,
    }
    ipam = {
        "ranges": [
            [
                {"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.4", "rangeEnd": "10.1.0.5"},
                {"subnet": "10.2.0.0/29", "rangeStart": "10.2.0.2", "rangeEnd": "10.2.0.3", "gateway": "10.2.0.6"},
            ],
            [{"subnet": "fd00:1::/64"}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}, route],
        "resolvConf": str(resolv_conf),
    }
    assert host_local("ADD", "c0", ipam=ipam) == {
        "cniVersion": "1.1.0",
        "dns": {"nameservers": ["10.0.0.53"], "options": ["ndots:2"], "search": ["a.b", "c.d"]},
        "ips": [
            {"address": "10.1.0.4/29", "gateway": "10.1.0.1"},
            {"address": "fd00:1::2/64", "gateway": "fd00:1::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, route],
    }
    given = [host_local("ADD", f"c{i}", ipam=ipam)["ips"][0] for i in (1, 2, 3)]
    assert given == [
        {"address": "10.1.0.5/29", "gateway": "10.1.0.1"},
        {"address": "10.2.0.2/29", "gateway": "10.2.0.6"},
        {"address": "10.2.0.3/29", "gateway": "10.2.0.6"},
    ]
    full = error_of(host_local, "ADD", "c4", ipam=ipam)
    assert full.msg == (
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.0.4-10.1.0.5,10.2.0.2-10.2.0.3"
    )
    host_local("DEL", "c1", ipam=ipam)
    assert addresses(host_local("ADD", "c9", ipam=ipam)) == ["10.1.0.5/29", "fd00:1::6/64"]


def test_store_has_the_same_files_and_modes_as_the_go_plugins(host_local: Call, store: Path) -> None:
    host_local("ADD", "c1", ipam=DUAL)
    host_local("ADD", "c2", ifname="net1", ipam=DUAL)
    files = {file.name: (file.read_bytes(), oct(file.stat().st_mode)) for file in store.iterdir()}
    assert files == {
        "10.1.0.2": (b"c1\r\neth0", "0o100600"),
        "10.1.0.3": (b"c2\r\nnet1", "0o100600"),
        "fd00:1::2": (b"c1\r\neth0", "0o100600"),
        "fd00:1::3": (b"c2\r\nnet1", "0o100600"),
        "last_reserved_ip.0": (b"10.1.0.3", "0o100600"),
        "last_reserved_ip.1": (b"fd00:1::3", "0o100600"),
        "lock": (b"", "0o100750"),
    }
    assert oct(store.stat().st_mode) == "0o40755"


def test_addresses_can_be_requested_by_cni_args_args_and_runtime_config(host_local: Call, store: Path) -> None:
    """Go: the same requests yield the same addresses, and so do the ADDs between them."""

    def add(container_id: str, cni_args: str = "", **config: Any) -> list[str]:
        return addresses(host_local("ADD", container_id, cni_args=cni_args, ipam=DUAL, **config))

    assert add("c1", "IP=10.1.0.88") == ["10.1.0.88/24", "fd00:1::2/64"]
    assert add("c5", "IP=10.1.0.90/24") == ["10.1.0.90/24", "fd00:1::3/64"]
    assert add("c6", "IP=") == ["10.1.0.91/24", "fd00:1::4/64"]
    assert add("c7", args={"cni": {"ips": ["10.1.0.100", "fd00:1::100"]}}) == ["10.1.0.100/24", "fd00:1::100/64"]
    wanted = {"ips": ["10.1.0.101/24", "fd00:1::101/64"]}
    assert add("c8", runtimeConfig=wanted) == ["10.1.0.101/24", "fd00:1::101/64"]
    assert add("c11", "IP=10.1.0.104", runtimeConfig={"ips": ["10.1.0.104"]}) == ["10.1.0.104/24", "fd00:1::102/64"]
    assert add("c13", "IgnoreUnknown=true;IP=10.1.0.120;FOO=1") == ["10.1.0.120/24", "fd00:1::103/64"]
    before = reservations(store)
    two = error_of(host_local, "ADD", "c9", ipam=DUAL, runtimeConfig={"ips": ["10.1.0.102"]}, cni_args="IP=10.1.0.103")
    assert two.msg == "failed to allocate all requested IPs: 10.1.0.103"
    assert reservations(store) == before


@pytest.mark.parametrize(
    ("cni_args", "msg"),
    [
        ("IP=10.1.0.1", "failed to allocate for range 0: requested ip 10.1.0.1 is subnet's gateway"),
        ("IP=10.9.0.1", "failed to allocate all requested IPs: 10.9.0.1"),
        ("IP=zzz", 'ARGS: error parsing value of pair "IP=zzz": invalid IP address zzz'),
        (
            "IP=10.1.0.91,10.1.0.92",
            'ARGS: error parsing value of pair "IP=10.1.0.91,10.1.0.92": invalid IP address 10.1.0.91,10.1.0.92',
        ),
        ("IP=10.1.0.88;FOO=1", 'ARGS: unknown args ["FOO=1"]'),
        ("IgnoreUnknown=1;", 'ARGS: invalid pair ""'),
    ],
)
def test_invalid_requested_address_is_refused_and_reserves_nothing(
    host_local: Call, store: Path, cni_args: str, msg: str
) -> None:
    assert error_of(host_local, "ADD", ipam=DUAL, cni_args=cni_args).msg == msg
    assert not store.exists() or reservations(store) == {}


def test_error_for_a_requested_address_in_use_names_its_holder(host_local: Call) -> None:
    host_local("ADD", "c1", ipam=V4, cni_args="IP=10.1.0.9")
    error = error_of(host_local, "ADD", "c2", ipam=V4, cni_args="IP=10.1.0.9")
    assert error.msg.endswith("requested IP address 10.1.0.9 is not available in range set 10.1.0.1-10.1.0.254")
    assert error.details == "it is reserved for container c1, interface eth0"


def test_range_sets_are_ordered_runtime_config_then_single_range_then_ranges(host_local: Call, store: Path) -> None:
    ipam = {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.50", "ranges": [[{"subnet": "10.3.0.0/24"}]]}
    ranges = {"ipRanges": [[{"subnet": "10.7.0.0/24", "gateway": "10.7.0.254"}]]}
    result = host_local("ADD", ipam=ipam, runtimeConfig=ranges)
    assert addresses(result) == ["10.7.0.1/24", "10.2.0.50/24", "10.3.0.2/24"]
    assert [(store / f"last_reserved_ip.{i}").read_text() for i in range(3)] == ["10.7.0.1", "10.2.0.50", "10.3.0.2"]


def test_keys_are_case_insensitive_and_null_means_absent(host_local: Call) -> None:
    assert addresses(host_local("ADD", ipam={"RANGES": [[{"SubNet": "10.1.0.0/24", "gateway": None}]]})) == [
        "10.1.0.2/24"
    ]


@pytest.mark.parametrize(
    ("ipam", "config", "msg"),
    [
        ({}, {}, "no IP ranges specified: add a subnet or ranges to ipam"),
        ({"ranges": [[]]}, {}, "invalid range set 0: empty range set: add a range with a subnet"),
        ({"ranges": [[{}]]}, {}, "invalid range set 0: the range has no subnet"),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/31"}]]},
            {},
            "invalid range set 1: Network 10.2.0.0/31 too small to allocate from: the prefix is at most /30",
        ),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]},
            {},
            (
                "range set 0 overlaps with 1: 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.0.126 share addresses;"
                " put both ranges into one set"
            ),
        ),
        (
            {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]},
            {"cniVersion": "0.2.0"},
            "CNI version 0.2.0 does not support more than 1 address per family",
        ),
        ({"subnet": "bogus"}, {}, "invalid range set 0: invalid CIDR address: bogus"),
        (
            V4,
            {"runtimeConfig": {"ips": ["bogus"]}},
            "failed to load netconf: runtimeConfig.ips: invalid IP address: bogus",
        ),
        (
            {"ranges": [[{"subnet": 5}]]},
            {},
            "failed to load netconf: ipam.ranges[0][0].subnet: Input should be a valid string, not 5",
        ),
        (
            {**V4, "routes": [{"dst": "0.0.0.0"}]},
            {},
            "failed to load netconf: ipam.routes[0]: invalid CIDR address: 0.0.0.0 (a route.dst)",
        ),
    ],
)
def test_invalid_configuration_is_refused_before_anything_changes(
    host_local: Call, data_dir: Path, ipam: dict[str, Any], config: dict[str, Any], msg: str
) -> None:
    error = error_of(host_local, "ADD", ipam=ipam, **config)
    assert (error.code, error.msg) == (7, msg)
    assert not data_dir.exists()


def test_missing_ipam_section_is_accepted_by_status_and_refused_by_add(host_local: Call) -> None:
    def without_ipam(command: str) -> tuple[str, int]:
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/x",
            "CNI_PATH": "/x",
        }
        return host_local.answer(env, b'{"cniVersion": "1.1.0", "name": "mynet", "type": "x"}')

    assert without_ipam("STATUS") == ("", 0)
    stdout, status = without_ipam("ADD")
    assert "IPAM config missing 'ipam' key" in stdout
    assert status == 1


def test_unreadable_resolv_conf_is_an_error_before_anything_is_reserved(host_local: Call, data_dir: Path) -> None:
    error = error_of(host_local, "ADD", ipam={**V4, "resolvConf": "/nonexistent"})
    assert error.msg == "open /nonexistent: no such file or directory"
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("cni_version", "expected"),
    [
        (
            "0.1.0",
            {
                "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1"},
                "ip6": {"ip": "fd00:1::2/64", "gateway": "fd00:1::1"},
            },
        ),
        (
            "0.4.0",
            {
                "ips": [
                    {"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
                    {"version": "6", "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
                ]
            },
        ),
    ],
)
def test_results_of_older_cni_versions_have_their_own_format(
    host_local: Call, cni_version: str, expected: dict[str, Any]
) -> None:
    result = host_local("ADD", ipam=DUAL, cniVersion=cni_version)
    assert result == {"cniVersion": cni_version, "dns": {}, **expected}


def test_error_for_an_unusable_store_names_the_directory_and_the_cause(host_local: Call, data_dir: Path) -> None:
    data_dir.write_text("a file")
    error = error_of(host_local, "ADD", ipam=V4)
    assert error.code == 5
    assert error.msg == f"host-local cannot use its store {data_dir}/mynet: Not a directory"


def test_failed_repeated_add_keeps_the_addresses_of_the_first_add(host_local: Call, store: Path) -> None:
    """Go: the rollback of the second ADD releases what the first ADD reserved for the same interface."""
    host_local("ADD", "c1", ipam=DUAL)
    before = reservations(store)
    error = error_of(host_local, "ADD", "c1", ipam=DUAL, cni_args="IP=10.1.0.99")
    assert error.msg == (
        "failed to allocate for range 1: fd00:1::2 has been allocated to c1, duplicate allocation is not allowed"
    )
    error_of(host_local, "ADD", "c1", ipam=DUAL, cni_args="IP=10.9.9.9")
    assert reservations(store) == before


def test_add_that_fails_between_two_reservations_reserves_nothing(
    host_local: Call, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_local("ADD", "c1", ipam=DUAL)
    link, left = os.link, [1]

    def link_once(*arguments: Any, **options: Any) -> None:
        if not left.pop():
            raise OSError(28, "No space left on device")
        link(*arguments, **options)
        left.append(0)

    monkeypatch.setattr(os, "link", link_once)
    assert "No space left on device" in error_of(host_local, "ADD", "c2", ipam=DUAL).msg
    monkeypatch.undo()
    assert reservations(store) == {"10.1.0.2": "c1\r\neth0", "fd00:1::2": "c1\r\neth0"}
    assert addresses(host_local("ADD", "c2", ipam=DUAL)) == ["10.1.0.4/24", "fd00:1::3/64"]


def test_del_releases_only_the_addresses_of_its_interface_and_can_be_repeated(host_local: Call, store: Path) -> None:
    host_local("ADD", "c1", ipam=DUAL)
    host_local("ADD", "c1", ifname="net1", ipam=DUAL)
    host_local("ADD", "c2", ipam=DUAL)
    for _ in range(2):
        assert host_local("DEL", "c1", ipam=DUAL) is None
        assert set(reservations(store).values()) == {"c1\r\nnet1", "c2\r\neth0"}
    assert (store / "lock").exists()
    assert (store / "last_reserved_ip.0").read_text() == "10.1.0.4"


def test_del_succeeds_without_a_store_and_creates_none(host_local: Call, data_dir: Path) -> None:
    host_local("DEL", ipam=V4)
    assert not data_dir.exists()
    data_dir.write_text("a file")
    host_local("DEL", ipam=V4)


@pytest.mark.parametrize(
    ("ipam", "config", "cni_args"),
    [
        ({"subnet": "10.1.0.0/31"}, {}, ""),
        ({"ranges": "none"}, {}, ""),
        ({"ranges": [[{"subnet": 5}]]}, {"runtimeConfig": {"ips": 5}}, ""),
        ({}, {}, "IP=bogus;FOO=1;;"),
        (V4, {"prevResult": {"ips": "bogus"}}, ""),
        ({**V4, "routes": [{"dst": "x"}], "resolvConf": "/nonexistent"}, {}, ""),
    ],
)
def test_del_succeeds_with_an_invalid_configuration(
    host_local: Call, store: Path, ipam: dict[str, Any], config: dict[str, Any], cni_args: str
) -> None:
    host_local("ADD", ipam=V4)
    host_local("DEL", ipam=ipam, cni_args=cni_args, **config)
    assert reservations(store) == {}


def test_del_releases_files_without_an_interface_name_only_if_no_others_match(host_local: Call, store: Path) -> None:
    """Plugins before 0.8 write the container ID alone."""
    host_local("ADD", "c1", ipam=V4)
    (store / "10.1.0.77").write_text("c1\n")
    host_local("DEL", "c1", ipam=V4)
    assert reservations(store) == {"10.1.0.77": "c1\n"}
    host_local("DEL", "c1", ipam=V4)
    assert reservations(store) == {}


def test_check_succeeds_after_add(host_local: Call) -> None:
    result = host_local("ADD", ipam=DUAL)
    assert host_local("CHECK", ipam=DUAL, prevResult=result) is None
    assert host_local("CHECK", ipam=DUAL) is None


def test_check_fails_after_del(host_local: Call) -> None:
    msg = "host-local: Failed to find address added by container c1"
    assert error_of(host_local, "CHECK", ipam=DUAL).msg == msg
    host_local("ADD", ipam=DUAL)
    host_local("DEL", ipam=DUAL)
    assert error_of(host_local, "CHECK", ipam=DUAL).msg == msg


def test_check_fails_if_an_address_was_released_or_reserved_for_another_container(
    host_local: Call, store: Path
) -> None:
    """Go: CHECK accepts any address that is reserved for the container."""
    result = host_local("ADD", ipam=DUAL)
    (store / "10.1.0.2").unlink()
    error = error_of(host_local, "CHECK", ipam=DUAL, prevResult=result)
    assert error.msg == "10.1.0.2 of eth0 is not reserved for container c1"
    assert error.details.startswith("10.1.0.2 is free")
    (store / "10.1.0.2").write_bytes(b"c2\r\neth0")
    assert error_of(host_local, "CHECK", ipam=DUAL, prevResult=result).details == (
        "10.1.0.2 is reserved for container c2, interface eth0"
    )


def test_check_ignores_addresses_outside_its_ranges(host_local: Call) -> None:
    result = host_local("ADD", ipam=V4)
    result["ips"] += [{"address": "192.168.7.7/24"}]
    host_local("CHECK", ipam=V4, prevResult=result)


def test_status_fails_with_code_50_when_a_range_set_has_no_free_address(host_local: Call, data_dir: Path) -> None:
    ipam = {"ranges": [[{"subnet": "10.1.0.0/30"}], [{"subnet": "fd00:1::/64"}]]}
    assert host_local("STATUS", ipam=ipam) is None
    assert not data_dir.exists(), "STATUS creates nothing"
    host_local("ADD", ipam=ipam)
    error = error_of(host_local, "STATUS", ipam=ipam)
    assert error.code == 50
    assert error.msg == "range set 0 is full: no IP addresses available in range set: 10.1.0.1-10.1.0.2"
    host_local("DEL", ipam=ipam)
    assert host_local("STATUS", ipam=ipam) is None


def test_status_fails_if_the_store_cannot_be_written(host_local: Call, data_dir: Path) -> None:
    data_dir.write_text("a file")
    error = error_of(host_local, "STATUS", ipam=V4)
    assert (error.code, error.details) == (50, f"{data_dir} is not a directory")


def test_status_fails_with_an_invalid_configuration(host_local: Call) -> None:
    assert error_of(host_local, "STATUS", ipam={"subnet": "10.1.0.0/31"}).code == 7


def valid_attachments(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"cni.dev/valid-attachments": [{"containerID": id_, "ifname": ifname} for id_, ifname in pairs]}


def test_gc_releases_addresses_without_a_valid_attachment(host_local: Call, store: Path) -> None:
    """containernetworking/plugins#252: addresses stay reserved after a reboot."""
    for container_id, ifname in (("c1", "eth0"), ("c1", "net1"), ("c2", "eth0"), ("c3", "eth0")):
        host_local("ADD", container_id, ifname=ifname, ipam=DUAL)
    (store / "10.1.0.70").write_text("c3")  # without an interface name: valid while the container has any attachment
    (store / "10.1.0.71").write_text("c4")
    (store / "10.1.0.72").write_text("for the printer on the second floor")
    (store / "notes").write_text("c4")
    assert host_local("GC", ipam=DUAL, **valid_attachments(("c1", "net1"), ("c3", "eth0"), ("c9", "eth0"))) is None
    assert reservations(store) == {
        "10.1.0.3": "c1\r\nnet1",
        "fd00:1::3": "c1\r\nnet1",
        "10.1.0.5": "c3\r\neth0",
        "fd00:1::5": "c3\r\neth0",
        "10.1.0.70": "c3",
        "10.1.0.72": "for the printer on the second floor",
        "notes": "c4",
    }
    host_local("GC", ipam=DUAL, **valid_attachments())
    assert set(reservations(store)) == {"10.1.0.72", "notes"}


def test_gc_without_valid_attachments_key_releases_nothing_and_creates_no_store(
    host_local: Call, data_dir: Path
) -> None:
    host_local("GC", ipam=V4, **valid_attachments())
    assert not data_dir.exists()
    host_local("ADD", ipam=V4)
    host_local("GC", ipam=V4)
    assert set(reservations(data_dir / "mynet")) == {"10.1.0.2"}


def test_gc_succeeds_with_an_invalid_configuration(host_local: Call, store: Path) -> None:
    host_local("ADD", ipam=V4)
    host_local("GC", ipam={"subnet": "10.1.0.0/31"}, **valid_attachments())
    assert reservations(store) == {}


def test_gc_removes_old_empty_files_and_keeps_new_ones(host_local: Call, store: Path) -> None:
    """A crash of the Go plugin leaves an empty file. A new empty file may be about to be written."""
    host_local("ADD", ipam=V4)
    for name, age in (("10.1.0.50", 3600), ("10.1.0.51", 0)):
        (store / name).touch()
        now = (store / name).stat().st_mtime
        os.utime(store / name, (now - age, now - age))
    host_local("GC", ipam=V4, **valid_attachments(("c1", "eth0")))
    assert set(reservations(store)) == {"10.1.0.2", "10.1.0.51"}


def test_no_verb_loads_pyroute2(data_dir: Path) -> None:
    script = f"""
import json, sys
from pycni.sdk.dispatch import handle_call
from pycni_plugins.host_local.plugin import HostLocal
config = {{"cniVersion": "1.1.0", "name": "n", "type": "x", "cni.dev/valid-attachments": [],
          "ipam": {{"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": {str(data_dir)!r}}}}}
env = {{"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/x", "CNI_PATH": "/x"}}
for command in ("ADD", "CHECK", "STATUS", "DEL", "GC"):
    reply = handle_call("host-local", HostLocal, env | {{"CNI_COMMAND": command}}, json.dumps(config).encode(), None)
    assert reply.status == 0, reply
print("pyroute2" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_each_range_of_a_flat_list_is_a_range_set(host_local: Call) -> None:
    """containerd sends ipRanges as a flat list, with the field names of the Go structure."""
    ranges = [{"Subnet": "10.7.0.0/24", "RangeStart": "", "Gateway": ""}, {"Subnet": "fd00:7::/64"}]
    result = host_local("ADD", ipam={}, runtimeConfig={"ipRanges": ranges})
    assert addresses(result) == ["10.7.0.2/24", "fd00:7::2/64"]


def test_ip_ranges_of_a_wrong_type_are_refused(host_local: Call) -> None:
    error = error_of(host_local, "ADD", ipam={}, runtimeConfig={"ipRanges": "10.7.0.0/24"})
    assert error.code == 7
    assert "runtimeConfig.ipRanges" in error.msg
    assert error_of(host_local, "ADD", ipam={}, runtimeConfig={"ipRanges": [7]}).code == 7
