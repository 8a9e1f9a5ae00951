"""tuning: the effect of each option."""

import json
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.tuning import allowlist, sysctls

from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.dispatch import handle_call
from pycni.sdk.invoke import invoke
from pycni.testing import Container, Host, PluginRunner

IPAM = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]}
MAC = "02:00:5e:00:00:01"
ARP_FILTER = "net.ipv4.conf.IFNAME.arp_filter"


def tuning_runner(container: Container, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """Return a runner of tuning, after ADD of bridge."""
    bridge_result = PluginRunner(
        "bridge", container, ifname=ifname, bridge="br0", isDefaultGateway=True, ipam=IPAM
    ).add()
    return PluginRunner(
        "tuning", container, ifname=ifname, dataDir=str(data_dir(container)), prevResult=bridge_result, **config
    )


def data_dir(container: Container) -> Path:
    return container.host.state / "tuning"


def backup(container: Container, ifname: str = "eth0") -> Path:
    return data_dir(container) / f"{container.id}_{ifname}.json"


def link(container: Container, ifname: str = "eth0") -> dict[str, Any]:
    (found,) = container.json(f"ip -j -d link show dev {ifname}")
    return dict(found)


def sysctl(container: Container, path: str) -> str:
    return container.run(f"cat /proc/sys/net/{path}").strip()


def add_text(runner: PluginRunner, document: str) -> None:
    """Call ADD with this text as the configuration. Raise CniError if it fails."""
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": runner.container.id,
        "CNI_NETNS": runner.netns,
        "CNI_IFNAME": runner.ifname,
        "CNI_PATH": "/nowhere",
    }
    reply = handle_call("tuning", registry.load("tuning"), env, document.encode(), invoke)
    if reply.status:
        raise CniError.from_json(json.loads(reply.stdout))


@pytest.fixture
def allowlist_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the administrator's allowlist, which does not exist yet."""
    path = tmp_path / "allowlist.conf"
    monkeypatch.setattr(allowlist, "PATH", path)
    return path


def test_link_attributes_are_set(container: Container) -> None:
    tuning_runner(container, mac=MAC, mtu=1400, promisc=True, allmulti=True, txQLen=777).add()
    eth = link(container)
    assert (eth["address"], eth["mtu"], eth["txqlen"]) == (MAC, 1400, 777)
    assert {"PROMISC", "ALLMULTI", "UP"} <= set(eth["flags"])


def test_addresses_and_routes_are_kept_when_the_mac_changes(container: Container) -> None:
    """Go: the interface is set down, and the kernel removes the routes."""
    runner = tuning_runner(container, mac=MAC)
    before = container.run("ip -4 route; ip -6 route; ip -br addr | awk '{print $3}'")
    runner.add()
    assert container.run("ip -4 route; ip -6 route; ip -br addr | awk '{print $3}'") == before
    assert "default via 10.1.0.1" in before
    container.host.run("ip neigh flush all")
    assert container.pings("10.1.0.1")
    assert container.pings("fd00:1::1")


def test_result_contains_the_new_mac(container: Container) -> None:
    runner = tuning_runner(container, mac=MAC)
    previous = runner.config["prevResult"]
    result = runner.add()
    assert result["interfaces"][2] == {**previous["interfaces"][2], "mac": MAC}
    assert result["interfaces"][:2] == previous["interfaces"][:2]
    assert {key: result[key] for key in ("ips", "routes")} == {key: previous[key] for key in ("ips", "routes")}


def test_result_contains_the_new_mtu_if_prev_result_has_one(container: Container) -> None:
    runner = tuning_runner(container, mtu=1400)
    runner.config["prevResult"]["interfaces"][2]["mtu"] = 1500
    assert [interface.get("mtu") for interface in runner.add()["interfaces"]] == [None, None, 1400]


def test_sysctls_are_set_in_the_container_only(host: Host, container: Container) -> None:
    before = host.run("cat /proc/sys/net/core/somaxconn")
    tuning_runner(container, sysctl={ARP_FILTER: "1", "net/core/somaxconn": "500"}).add()
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "1"
    assert sysctl(container, "core/somaxconn") == "500"
    assert host.run("cat /proc/sys/net/core/somaxconn") == before


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.conf.IFNAME.arp_filter", "ipv4/conf/eth0.7/arp_filter"),
        ("net/ipv4/conf/IFNAME/arp_filter", "ipv4/conf/eth0.7/arp_filter"),
        ("net.ipv4/conf.all/arp_filter", "ipv4/conf/all/arp_filter"),
        ("net.ipv4.IFNAME.IFNAME", "ipv4/eth0.7/IFNAME"),  # only the first IFNAME is replaced
        ("net..core//somaxconn.", "core/somaxconn"),
        ("net/../../../etc/passwd", "etc/passwd"),  # stays below /proc/sys/net
    ],
)
def test_sysctl_key_is_converted_to_a_path(key: str, path: str) -> None:
    assert sysctls.paths({key: "1"}, "eth0.7") == {path: "1"}


def test_add_without_options_does_not_open_the_namespace(container: Container) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": [{"address": "10.0.0.2/24"}]}
    runner = PluginRunner("tuning", container, prevResult=previous, promisc=False, mtu=0, mac="", sysctl={})
    runner.netns = "/run/netns/not-there"
    assert runner.add()["ips"] == previous["ips"]
    runner.check()


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"mac": MAC}, MAC),
        ({"mac": MAC, "cni_args": "02:00:00:00:00:02"}, "02:00:00:00:00:02"),
        ({"cni_args": "02:00:00:00:00:02", "runtimeConfig": {"mac": "02:00:00:00:00:03"}}, "02:00:00:00:00:03"),
        (
            {"runtimeConfig": {"mac": "02:00:00:00:00:03"}, "args": {"cni": {"mac": "02:00:00:00:00:04"}}},
            "02:00:00:00:00:04",
        ),
        ({"runtimeConfig": {"mac": ""}, "mac": MAC.upper()}, MAC),
    ],
)
def test_mac_precedence(container: Container, sources: dict[str, Any], expected: str) -> None:
    """In ascending order: configuration, CNI_ARGS, runtimeConfig.mac, args.cni.mac."""
    runner = tuning_runner(container, **{key: value for key, value in sources.items() if key != "cni_args"})
    runner.cni_args = f"MAC={sources['cni_args']}" if "cni_args" in sources else ""
    runner.add()
    assert link(container)["address"] == expected
    runner.check()


def test_args_cni_overrides_every_option(container: Container) -> None:
    args = {"sysctl": {ARP_FILTER: "1"}, "promisc": True, "mtu": 1300, "allmulti": False, "txQLen": 5}
    config = {"sysctl": {ARP_FILTER: "0", "net.core.somaxconn": "77"}, "promisc": False, "mtu": 1200, "allmulti": True}
    tuning_runner(container, **config, args={"cni": args}).add()
    eth = link(container)
    assert (eth["mtu"], eth["txqlen"], "PROMISC" in eth["flags"], "ALLMULTI" in eth["flags"]) == (1300, 5, True, False)
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "1"
    assert sysctl(container, "core/somaxconn") == "77"


def test_backup_has_the_go_plugins_format(container: Container) -> None:
    runner = tuning_runner(container, mac=MAC, mtu=1400, txQLen=0, allmulti=False)
    before = link(container)
    runner.add()
    text = backup(container).read_text()
    assert text.startswith(
        f'{{\n "mac": "{before["address"]}",\n "mtu": 1500,\n "allmulti": false,\n "txQLen": 1000,\n'
    )
    assert json.loads(text)["owner"] == runner.owner.label
    assert backup(container).stat().st_mode & 0o777 == 0o600


def test_no_backup_is_written_for_sysctls_only(container: Container) -> None:
    tuning_runner(container, sysctl={ARP_FILTER: "1"}).add()
    assert not data_dir(container).exists()


def test_del_restores_the_link_attributes(container: Container) -> None:
    runner = tuning_runner(container, mac=MAC, mtu=1400, promisc=True, allmulti=True, txQLen=777)
    before = link(container)
    runner.add()
    assert link(container) != before
    runner.delete()
    after = link(container)
    assert {key: after[key] for key in ("address", "mtu", "flags", "txqlen")} == {
        key: before[key] for key in ("address", "mtu", "flags", "txqlen")
    }
    assert not backup(container).exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sysctl": {"kernel.hostname": "x"}}, 'invalid net sysctl key: "kernel.hostname"'),
        ({"sysctl": {"net": "x"}}, 'invalid net sysctl key: "net"'),
        ({"sysctl": {"net/../kernel/hostname": "x"}}, "cannot set sysctl net/kernel/hostname to x: no such file"),
        ({"sysctl": {"../kernel/hostname": "x"}}, 'invalid net sysctl key: "../kernel/hostname"'),
        ({"sysctl": {"net.ipv4.nonsense": "1"}}, "cannot set sysctl net/ipv4/nonsense to 1: no such file or directory"),
        ({"sysctl": {ARP_FILTER: "many"}}, "cannot set sysctl net/ipv4/conf/eth0/arp_filter to many: invalid argument"),
        ({"sysctl": {ARP_FILTER: 1}}, "sysctl.*: Input should be a valid string, not 1"),
        ({"mac": "zz:11"}, 'mac: invalid MAC address, .*: "zz:11"'),
        ({"args": {"cni": {"mac": "01:00:00:00:00:01"}}}, "args.cni.mac: invalid MAC address.* unicast"),
        ({"mtu": 10}, "cannot set eth0 mtu 10: invalid argument"),
        ({"mtu": -1}, "mtu: Input should be greater than or equal to 0, not -1"),
        ({"txQLen": "many"}, 'txQLen: Input should be a valid integer, not "many"'),
    ],
)
def test_error_for_an_invalid_option_names_it(container: Container, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError, match=message):
        tuning_runner(container, **config).add()
    assert not backup(container).exists()


def test_mac_in_cni_args_is_validated(container: Container) -> None:
    runner = tuning_runner(container)
    runner.cni_args = "MAC=zz"
    with pytest.raises(CniError, match='mac: invalid MAC address, .*: "zz"'):
        runner.add()


@pytest.mark.parametrize(
    "sysctls",
    [
        '"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}',
        '"SysCtl": {"net.core.somaxconn": "1", "net.ipv4.ip_forward": "1", "net.core.somaxconn": "1"}',
        '"args": {"cni": {"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}}}',
    ],
)
def test_duplicate_sysctl_is_refused(container: Container, sysctls: str) -> None:
    """The duplicate must be found in the text, since a decoded object has only one of two equal keys."""
    runner = PluginRunner("tuning", container)
    document = '{"cniVersion": "1.1.0", "name": "test", "type": "tuning", "prevResult": {}, ' + sysctls + "}"
    with pytest.raises(CniError, match="duplicated sysctl keys are not allowed: net.core.somaxconn"):
        add_text(runner, document)
    assert sysctl(container, "core/somaxconn") not in ("1", "2")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (r"^net\.ipv4\.conf\.IFNAME\.arp_filter$", ARP_FILTER),
        ("net.core", "net.core.somaxconn"),  # matches anywhere in the key
        ("\n  \n nothing\t\n  somaxconn$ \n", "net.core.somaxconn"),
        (r"^net[.][[:alpha:]]+[.][a-z_]+\z", "net.core.somaxconn"),  # Go's syntax
    ],
)
def test_sysctl_that_matches_the_allowlist_is_set(
    container: Container, allowlist_path: Path, lines: str, key: str
) -> None:
    allowlist_path.write_text(lines)
    runner = tuning_runner(container, sysctl={key: "1"})
    runner.add()
    runner.check()


def test_check_and_del_succeed_after_a_sysctl_is_removed_from_the_allowlist(
    container: Container, allowlist_path: Path
) -> None:
    allowlist_path.write_text("net.core")
    runner = tuning_runner(container, sysctl={"net.core.somaxconn": "77"}, mtu=1400)
    runner.add()
    allowlist_path.write_text("nothing")
    runner.check()
    runner.delete()
    assert link(container)["mtu"] == 1500


@pytest.mark.parametrize("lines", ["", r"^net\.ipv4\.conf\.eth0\.", r"^core", "^net$"])
def test_sysctl_that_does_not_match_the_allowlist_is_refused(
    container: Container, allowlist_path: Path, lines: str
) -> None:
    """The configured key is compared, before IFNAME is replaced."""
    allowlist_path.write_text(lines)
    runner = tuning_runner(container, sysctl={ARP_FILTER: "1"}, mtu=1400)
    with pytest.raises(CniError, match=f"Sysctl {ARP_FILTER} is not allowed. Only the following sysctls are allowed"):
        runner.add()
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "0"
    assert link(container)["mtu"] == 1500


def test_error_for_an_invalid_allowlist_names_file_and_line(container: Container, allowlist_path: Path) -> None:
    allowlist_path.write_text("net\n(unfinished\n")
    runner = tuning_runner(container, sysctl={ARP_FILTER: "1"})
    with pytest.raises(CniError, match="allowlist.conf, line 2: invalid regular expression"):
        runner.add()
    with pytest.raises(CniError, match="line 2") as caught:
        runner.status()
    assert caught.value.code == 50


CHECKED = {
    "mac": MAC,
    "mtu": 1400,
    "promisc": True,
    "allmulti": True,
    "txQLen": 777,
    "sysctl": {ARP_FILTER: "1", "net.ipv4.ip_local_port_range": "32768 60999"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip link set eth0 address 02:00:00:00:00:09", f"should have mac {MAC}, but has 02:00:00:00:00:09"),
        ("ip link set eth0 mtu 1401", "should have mtu 1400, but has 1401"),
        ("ip link set eth0 promisc off", "should have promisc True, but has False"),
        ("ip link set eth0 allmulticast off", "should have allmulti True, but has False"),
        ("ip link set eth0 txqueuelen 5", "should have txqlen 777, but has 5"),
        ("echo 0 > /proc/sys/net/ipv4/conf/eth0/arp_filter", "net/ipv4/conf/eth0/arp_filter should be 1, but is 0"),
        ("echo 9000 9999 > /proc/sys/net/ipv4/ip_local_port_range", "should be 32768 60999, but is 9000 9999"),
        ("ip link del eth0", "cannot be read"),
    ],
)
def test_check_reports_changed_attributes_and_sysctls(container: Container, change: str, message: str) -> None:
    runner = tuning_runner(container, **CHECKED)
    runner.add()
    runner.check()
    container.run(change)
    with pytest.raises(CniError, match=message):
        runner.check()


def test_check_ignores_white_space_of_sysctls_and_case_of_macs(container: Container) -> None:
    """The kernel separates the values with tabs and returns MACs in lower case."""
    runner = tuning_runner(container, sysctl={"net.ipv4.ip_local_port_range": "32768   60999"}, mac=MAC.upper())
    runner.add()
    runner.check()


def test_check_ignores_options_that_are_not_configured(container: Container) -> None:
    runner = tuning_runner(container, mtu=1400)
    runner.add()
    container.run("ip link set eth0 promisc on txqueuelen 9")
    runner.check()


def test_status_succeeds(container: Container, allowlist_path: Path) -> None:
    allowlist_path.write_text("net")
    PluginRunner("tuning", container, sysctl={ARP_FILTER: "1"}, mtu=1400, dataDir=str(data_dir(container))).status()


def test_status_fails_if_no_backup_can_be_written(container: Container) -> None:
    (container.host.state / "bin").mkdir(parents=True)
    (container.host.state / "bin" / "file").write_text("")
    data_dir = container.host.state / "bin" / "file" / "tuning"
    with pytest.raises(CniError, match=f"dataDir {data_dir} is not writable") as caught:
        PluginRunner("tuning", container, mtu=1400, dataDir=str(data_dir)).status()
    assert caught.value.code == 50
