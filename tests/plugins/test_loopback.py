"""loopback: the container's lo interface."""

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change

LO = {"name": "lo", "mac": "00:00:00:00:00:00"}


def test_add_check_and_del_leave_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("loopback", container))


def test_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: PluginRunner("loopback", container)) == 1


def test_add_sets_lo_up_and_returns_its_addresses(container: Container) -> None:
    result = PluginRunner("loopback", container, ifname="whatever").add()
    assert result["interfaces"] == [LO | {"sandbox": container.path}]
    assert result["ips"] == [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]
    assert container.pings("127.0.0.1")
    assert container.pings("::1")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", {"ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}, "dns": {}}),
        ("0.2.0", {"ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}, "dns": {}}),
        ("0.3.1", {"ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}]}),
        ("0.4.0", {"ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}]}),
    ],
)
def test_result_has_the_format_of_the_requested_version(
    container: Container, version: str, expected: dict[str, object]
) -> None:
    """Go: results of 0.2.0 to 0.4.0 have the format of 1.x."""
    if "ips" in expected:
        container.run("sysctl -q net.ipv6.conf.lo.disable_ipv6=1")
    result = PluginRunner("loopback", container, cniVersion=version).add()
    assert result["cniVersion"] == version
    assert {key: result[key] for key in expected} == expected


def test_prev_result_is_returned_in_a_chain(container: Container) -> None:
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}
    assert PluginRunner("loopback", container, prevResult=previous).add() == previous


def test_non_loopback_address_on_lo_is_refused(container: Container) -> None:
    container.run("ip addr add 10.9.9.9/32 dev lo")
    with pytest.raises(CniError, match=r'non-loopback address "10\.9\.9\.9/32"'):
        PluginRunner("loopback", container).add()
    assert "UP" not in container.run("ip -br link show lo").split()[1]


def test_check_fails_if_lo_is_down(container: Container) -> None:
    runner = PluginRunner("loopback", container)
    runner.add()
    runner.check()
    container.run("ip link set lo down")
    with pytest.raises(CniError, match="loopback interface is down"):
        runner.check()


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "/etc/passwd"])
def test_del_succeeds_when_the_network_namespace_is_gone(container: Container, netns: str) -> None:
    runner = PluginRunner("loopback", container)
    runner.add()
    runner.netns = netns
    runner.delete()


def test_error_names_the_path_of_a_missing_namespace(container: Container) -> None:
    runner = PluginRunner("loopback", container)
    runner.netns = "/nowhere/at/all"
    with pytest.raises(CniError, match="/nowhere/at/all") as caught:
        runner.add()
    assert caught.value.code == 8
