"""bridge: lifecycle, failures and killed processes, with every option that the kernel supports."""

from collections.abc import Collection
from typing import Any

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

DUAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
CASES: dict[str, dict[str, Any]] = {
    "layer 2": {},
    "addresses": {"ipam": DUAL},
    "gateway": {"ipam": DUAL, "isGateway": True},
    "default gateway and masquerade": {"ipam": DUAL, "isDefaultGateway": True, "ipMasq": True},
    "iptables": {"ipam": DUAL, "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": "iptables"},
    "spoof check": {"ipam": DUAL, "isGateway": True, "macspoofchk": True},
    "hairpin": {"hairpinMode": True},
    "promiscuous": {"promiscMode": True},
    "isolation": {"portIsolation": True},
    "mtu and mac": {"mtu": 1400, "args": {"cni": {"mac": "02:00:5e:00:00:01"}}},
    "interface down": {"disableContainerInterface": True},
    "dad": {"ipam": DUAL, "enabledad": True},
    "all at once": {
        "ipam": DUAL,
        "isDefaultGateway": True,
        "ipMasq": True,
        "macspoofchk": True,
        "hairpinMode": True,
        "portIsolation": True,
        "mtu": 1400,
    },
}
VLANS: dict[str, Any] = {"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 210}], "ipam": DUAL, "isGateway": True}
EVERYDAY = {"default gateway and masquerade", "interface down", "all at once"}
SLOW = {"dad"}


def by_case(*, exclude: Collection[str] = ()) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=name, marks=() if name in EVERYDAY else pytest.mark.exhaustive)
            for name, case in CASES.items()
            if name not in exclude
        ],
    )


@by_case()
def test_add_check_and_del_leave_nothing_behind(container: Container, case: dict[str, Any]) -> None:
    check_lifecycle(PluginRunner("bridge", container, bridge="br0", **case))


@pytest.mark.parametrize("name", ["iptables", "all at once"])
def test_long_container_id_is_supported(container: Container, name: str) -> None:
    """Go: the names of macspoofchk's chains contain the container ID, and are limited to fewer characters."""
    container.id = "c" * 250
    check_lifecycle(PluginRunner("bridge", container, bridge="br0", **CASES[name]))


@by_case(exclude=SLOW)
def test_failed_add_leaves_nothing_behind(container: Container, case: dict[str, Any]) -> None:
    assert fail_at_every_change(lambda: PluginRunner("bridge", container, bridge="br0", **case)) > 1


@pytest.mark.parametrize("name", ["layer 2", "iptables", "all at once"])
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(container: Container, name: str) -> None:
    assert kill_at_every_change(lambda: PluginRunner("bridge", container, bridge="br0", **CASES[name])) > 1


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_add_check_and_del_with_vlans_leave_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("bridge", container, bridge="br0", **VLANS))


@pytest.mark.needs_kernel("bridge VLAN filtering")
def test_failed_add_with_vlans_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: PluginRunner("bridge", container, bridge="br0", **VLANS)) > 3
