"""dhcp as the IPAM plugin of bridge: lifecycle, failures and killed processes."""

import pytest

from pycni.testing import check_lifecycle, fail_at_every_change, kill_at_every_change, wait_for

from .conftest import CreateBridgeRunner, Lan, LeaseDaemon


def test_add_check_and_del_leave_nothing_behind(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.isc()
    check_lifecycle(bridge())
    assert lease_daemon.records() == []


def test_failed_add_leaves_nothing_behind(lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    lan.isc()
    assert fail_at_every_change(bridge) > 3
    assert lease_daemon.records() == []
    assert lan.log_text().count("DHCPACK") > 1
    wait_for(lambda: lan.log_text().count("DHCPRELEASE") > 1, "the release of leases acquired before a failure")


@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.isc()
    assert kill_at_every_change(bridge) > 3
    assert lease_daemon.records() == []
