"""tuning: each option and its effect, seen from outside."""

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


def tuned(container: Container, ifname: str = "eth0", **config: Any) -> PluginRunner:
    """A runtime for a bridged container, before the ADD of tuning."""
    made = PluginRunner("bridge", container, ifname=ifname, bridge="br0", isDefaultGateway=True, ipam=IPAM).add()
    return PluginRunner("tuning", container, ifname=ifname, dataDir=str(data_dir(container)), prevResult=made, **config)


def data_dir(container: Container) -> Path:
    return container.host.state / "tuning"


def backup(container: Container, ifname: str = "eth0") -> Path:
    return data_dir(container) / f"{container.id}_{ifname}.json"


def link(container: Container, ifname: str = "eth0") -> dict[str, Any]:
    (found,) = container.json(f"ip -j -d link show dev {ifname}")
    return dict(found)


def sysctl(container: Container, path: str) -> str:
    return container.run(f"cat /proc/sys/net/{path}").strip()


def add_raw(runtime: PluginRunner, document: str) -> None:
    """ADD with this very text as the configuration. Raises CniError."""
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": runtime.container.id,
        "CNI_NETNS": runtime.netns,
        "CNI_IFNAME": runtime.ifname,
        "CNI_PATH": "/nowhere",
    }
    reply = handle_call("tuning", registry.load("tuning"), env, document.encode(), invoke)
    if reply.status:
        raise CniError.from_json(json.loads(reply.stdout))


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The administrator's allowlist, which is not there yet."""
    path = tmp_path / "allowlist.conf"
    monkeypatch.setattr(allowlist, "PATH", path)
    return path


def test_the_interface_is_as_configured(container: Container) -> None:
    tuned(container, mac=MAC, mtu=1400, promisc=True, allmulti=True, txQLen=777).add()
    eth = link(container)
    assert (eth["address"], eth["mtu"], eth["txqlen"]) == (MAC, 1400, 777)
    assert {"PROMISC", "ALLMULTI", "UP"} <= set(eth["flags"])


def test_addresses_and_routes_survive_another_mac(container: Container) -> None:
    """The Go plugin sets the interface down for it, and the kernel drops the routes."""
    runtime = tuned(container, mac=MAC)
    before = container.run("ip -4 route; ip -6 route; ip -br addr | awk '{print $3}'")
    runtime.add()
    assert container.run("ip -4 route; ip -6 route; ip -br addr | awk '{print $3}'") == before
    assert "default via 10.1.0.1" in before
    container.host.run("ip neigh flush all")
    assert container.pings("10.1.0.1")
    assert container.pings("fd00:1::1")


def test_the_result_has_the_new_mac(container: Container) -> None:
    runtime = tuned(container, mac=MAC)
    previous = runtime.config["prevResult"]
    result = runtime.add()
    assert result["interfaces"][2] == {**previous["interfaces"][2], "mac": MAC}
    assert result["interfaces"][:2] == previous["interfaces"][:2]
    assert {key: result[key] for key in ("ips", "routes")} == {key: previous[key] for key in ("ips", "routes")}


def test_the_result_has_the_new_mtu_where_it_had_the_old(container: Container) -> None:
    runtime = tuned(container, mtu=1400)
    runtime.config["prevResult"]["interfaces"][2]["mtu"] = 1500
    assert [interface.get("mtu") for interface in runtime.add()["interfaces"]] == [None, None, 1400]


def test_sysctls_are_set_in_the_container_alone(host: Host, container: Container) -> None:
    before = host.run("cat /proc/sys/net/core/somaxconn")
    tuned(container, sysctl={ARP_FILTER: "1", "net/core/somaxconn": "500"}).add()
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "1"
    assert sysctl(container, "core/somaxconn") == "500"
    assert host.run("cat /proc/sys/net/core/somaxconn") == before


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.conf.IFNAME.arp_filter", "ipv4/conf/eth0.7/arp_filter"),
        ("net/ipv4/conf/IFNAME/arp_filter", "ipv4/conf/eth0.7/arp_filter"),
        ("net.ipv4/conf.all/arp_filter", "ipv4/conf/all/arp_filter"),
        ("net.ipv4.IFNAME.IFNAME", "ipv4/eth0.7/IFNAME"),  # the first one alone
        ("net..core//somaxconn.", "core/somaxconn"),
        ("net/../../../etc/passwd", "etc/passwd"),  # below /proc/sys/net, come what may
    ],
)
def test_which_file_a_key_means(key: str, path: str) -> None:
    assert sysctls.paths({key: "1"}, "eth0.7") == {path: "1"}


def test_with_nothing_to_tune_nothing_is_looked_at(container: Container) -> None:
    previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": [{"address": "10.0.0.2/24"}]}
    runtime = PluginRunner("tuning", container, prevResult=previous, promisc=False, mtu=0, mac="", sysctl={})
    runtime.netns = "/run/netns/not-there"
    assert runtime.add()["ips"] == previous["ips"]
    runtime.check()


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
def test_who_decides_on_the_mac(container: Container, sources: dict[str, Any], expected: str) -> None:
    """The configuration < CNI_ARGS < runtimeConfig.mac < args.cni.mac."""
    runtime = tuned(container, **{key: value for key, value in sources.items() if key != "cni_args"})
    runtime.cni_args = f"MAC={sources['cni_args']}" if "cni_args" in sources else ""
    runtime.add()
    assert link(container)["address"] == expected
    runtime.check()


def test_args_cni_stands_in_for_every_option(container: Container) -> None:
    args = {"sysctl": {ARP_FILTER: "1"}, "promisc": True, "mtu": 1300, "allmulti": False, "txQLen": 5}
    config = {"sysctl": {ARP_FILTER: "0", "net.core.somaxconn": "77"}, "promisc": False, "mtu": 1200, "allmulti": True}
    tuned(container, **config, args={"cni": args}).add()
    eth = link(container)
    assert (eth["mtu"], eth["txqlen"], "PROMISC" in eth["flags"], "ALLMULTI" in eth["flags"]) == (1300, 5, True, False)
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "1"
    assert sysctl(container, "core/somaxconn") == "77"


def test_the_backup_is_in_the_go_plugins_format(container: Container) -> None:
    runtime = tuned(container, mac=MAC, mtu=1400, txQLen=0, allmulti=False)
    before = link(container)
    runtime.add()
    text = backup(container).read_text()
    assert text.startswith(
        f'{{\n "mac": "{before["address"]}",\n "mtu": 1500,\n "allmulti": false,\n "txQLen": 1000,\n'
    )
    assert json.loads(text)["owner"] == runtime.owner.label
    assert backup(container).stat().st_mode & 0o777 == 0o600


def test_without_changes_of_the_interface_there_is_no_backup(container: Container) -> None:
    tuned(container, sysctl={ARP_FILTER: "1"}).add()
    assert not data_dir(container).exists()


def test_delete_makes_the_interface_what_it_was(container: Container) -> None:
    runtime = tuned(container, mac=MAC, mtu=1400, promisc=True, allmulti=True, txQLen=777)
    before = link(container)
    runtime.add()
    assert link(container) != before
    runtime.delete()
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
def test_what_cannot_be_is_refused_with_its_name(container: Container, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError, match=message):
        tuned(container, **config).add()
    assert not backup(container).exists()


def test_a_mac_in_cni_args_is_checked(container: Container) -> None:
    runtime = tuned(container)
    runtime.cni_args = "MAC=zz"
    with pytest.raises(CniError, match='mac: invalid MAC address, .*: "zz"'):
        runtime.add()


@pytest.mark.parametrize(
    "sysctls",
    [
        '"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}',
        '"SysCtl": {"net.core.somaxconn": "1", "net.ipv4.ip_forward": "1", "net.core.somaxconn": "1"}',
        '"args": {"cni": {"sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}}}',
    ],
)
def test_a_sysctl_that_is_configured_twice_is_refused(container: Container, sysctls: str) -> None:
    """Decoded, a configuration has but one of two equal keys: it must be seen in the text (TU-02)."""
    runtime = PluginRunner("tuning", container)
    document = '{"cniVersion": "1.1.0", "name": "test", "type": "tuning", "prevResult": {}, ' + sysctls + "}"
    with pytest.raises(CniError, match="duplicated sysctl keys are not allowed: net.core.somaxconn"):
        add_raw(runtime, document)
    assert sysctl(container, "core/somaxconn") not in ("1", "2")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (r"^net\.ipv4\.conf\.IFNAME\.arp_filter$", ARP_FILTER),
        ("net.core", "net.core.somaxconn"),  # anywhere in the key
        ("\n  \n nothing\t\n  somaxconn$ \n", "net.core.somaxconn"),
        (r"^net[.][[:alpha:]]+[.][a-z_]+\z", "net.core.somaxconn"),  # Go's dialect
    ],
)
def test_a_sysctl_that_the_administrator_allows(container: Container, allowed: Path, lines: str, key: str) -> None:
    allowed.write_text(lines)
    runtime = tuned(container, sysctl={key: "1"})
    runtime.add()
    runtime.check()


def test_what_was_allowed_is_checked_and_deleted_when_it_is_allowed_no_more(
    container: Container, allowed: Path
) -> None:
    allowed.write_text("net.core")
    runtime = tuned(container, sysctl={"net.core.somaxconn": "77"}, mtu=1400)
    runtime.add()
    allowed.write_text("nothing")
    runtime.check()
    runtime.delete()
    assert link(container)["mtu"] == 1500


@pytest.mark.parametrize("lines", ["", r"^net\.ipv4\.conf\.eth0\.", r"^core", "^net$"])
def test_a_sysctl_that_the_administrator_does_not_allow(container: Container, allowed: Path, lines: str) -> None:
    """The key is compared as it is configured, before the interface's name is put in (TU-03)."""
    allowed.write_text(lines)
    runtime = tuned(container, sysctl={ARP_FILTER: "1"}, mtu=1400)
    with pytest.raises(CniError, match=f"Sysctl {ARP_FILTER} is not allowed. Only the following sysctls are allowed"):
        runtime.add()
    assert sysctl(container, "ipv4/conf/eth0/arp_filter") == "0"
    assert link(container)["mtu"] == 1500


def test_an_allowlist_that_is_no_regular_expression_is_named_with_its_line(container: Container, allowed: Path) -> None:
    allowed.write_text("net\n(unfinished\n")
    runtime = tuned(container, sysctl={ARP_FILTER: "1"})
    with pytest.raises(CniError, match="allowlist.conf, line 2: '.unfinished' is no regular expression"):
        runtime.add()
    with pytest.raises(CniError, match="line 2") as caught:
        runtime.status()
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
    ("damage", "complaint"),
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
def test_check_notices(container: Container, damage: str, complaint: str) -> None:
    runtime = tuned(container, **CHECKED)
    runtime.add()
    runtime.check()
    container.run(damage)
    with pytest.raises(CniError, match=complaint):
        runtime.check()


def test_check_compares_sysctls_by_words_and_macs_by_value(container: Container) -> None:
    """The kernel separates words by tabs and writes MACs in small letters."""
    runtime = tuned(container, sysctl={"net.ipv4.ip_local_port_range": "32768   60999"}, mac=MAC.upper())
    runtime.add()
    runtime.check()


def test_check_expects_nothing_of_what_is_not_configured(container: Container) -> None:
    runtime = tuned(container, mtu=1400)
    runtime.add()
    container.run("ip link set eth0 promisc on txqueuelen 9")
    runtime.check()


def test_status_is_ready(container: Container, allowed: Path) -> None:
    allowed.write_text("net")
    PluginRunner("tuning", container, sysctl={ARP_FILTER: "1"}, mtu=1400, dataDir=str(data_dir(container))).status()


def test_status_says_where_no_backup_can_be_written(container: Container) -> None:
    (container.host.state / "bin").mkdir(parents=True)
    (container.host.state / "bin" / "file").write_text("")
    data_dir = container.host.state / "bin" / "file" / "tuning"
    with pytest.raises(CniError, match=f"dataDir {data_dir} is not writable") as caught:
        PluginRunner("tuning", container, mtu=1400, dataDir=str(data_dir)).status()
    assert caught.value.code == 50
