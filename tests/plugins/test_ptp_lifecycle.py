"""ptp: lifecycle, failures and killed processes, with every option."""

from typing import Any

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
CASES: dict[str, dict[str, Any]] = {
    "addresses": {},
    "mtu": {"mtu": 1400},
    "nftables": {"ipMasq": True},
    "iptables": {"ipMasq": True, "ipMasqBackend": "iptables"},
}
EVERYDAY = {"nftables", "iptables"}
by_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in EVERYDAY else pytest.mark.exhaustive)
        for name, case in CASES.items()
    ],
)


@by_case
def test_add_check_and_del_leave_nothing_behind(container: Container, case: dict[str, Any]) -> None:
    check_lifecycle(PluginRunner("ptp", container, ipam=DUAL, **case))


@by_case
def test_failed_add_leaves_nothing_behind(container: Container, case: dict[str, Any]) -> None:
    assert fail_at_every_change(lambda: PluginRunner("ptp", container, ipam=DUAL, **case)) > 3


@by_case
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(container: Container, case: dict[str, Any]) -> None:
    assert kill_at_every_change(lambda: PluginRunner("ptp", container, ipam=DUAL, **case)) > 3


def test_lifecycle_with_each_variant_of_iptables(container: Container, iptables: str) -> None:
    check_lifecycle(PluginRunner("ptp", container, ipam=DUAL, ipMasq=True, ipMasqBackend="iptables"))
    programs = container.host.run("cat /proc/thread-self/net/ip_tables_names").split()
    assert programs == (["nat"] if iptables == "legacy" else [])
