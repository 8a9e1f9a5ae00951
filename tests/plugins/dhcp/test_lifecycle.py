"""dhcp: whole lives, failures and deaths, as the IPAM plugin of bridge."""

import pytest

from pycni.testing import check_lifecycle, fail_at_every_change, kill_at_every_change, wait_for

from .conftest import BridgeOf, Keeper, Lan


def test_it_leaves_nothing_behind(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc()
    check_lifecycle(bridge())
    assert keeper.records() == []


def test_a_failed_add_leaves_nothing_behind(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc()
    assert fail_at_every_change(bridge) > 3
    assert keeper.records() == []
    assert lan.said().count("DHCPACK") > 1
    wait_for(lambda: lan.said().count("DHCPRELEASE") > 1, "what was acquired before a failure is given back")


@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del_or_gc(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc()
    assert kill_at_every_change(bridge) > 3
    assert keeper.records() == []
