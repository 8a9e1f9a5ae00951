"""What this kernel has, for tests that depend on it."""

import pytest

from pycni.testing import Host


def _filters_vlans(host: Host) -> bool:
    host.run("ip link add probe0 type bridge")
    host.run("ip link set probe0 type bridge vlan_filtering 1", check=False)
    (probe,) = host.json("ip -j -d link show probe0")
    host.run("ip link del probe0")
    return bool(probe["linkinfo"]["info_data"]["vlan_filtering"] == 1)


@pytest.fixture
def with_vlan_filtering(host: Host) -> None:
    """The kernel has bridge VLAN filtering."""
    if not _filters_vlans(host):
        pytest.skip("needs a kernel with bridge VLAN filtering; the guest kernel has it")


@pytest.fixture
def without_vlan_filtering(host: Host) -> None:
    """The kernel lacks bridge VLAN filtering."""
    if _filters_vlans(host):
        pytest.skip("needs a kernel without bridge VLAN filtering")
