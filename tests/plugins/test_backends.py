"""Default firewall backend: nftables, or iptables on a machine without nftables."""

import os
from pathlib import Path
from typing import Any

import pytest

from pycni.kernel.firewall.nftables import nft
from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner

PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
BRIDGE = {
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]},
}

pytestmark = pytest.mark.direct


@pytest.fixture
def without_nftables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a machine without libnftables and nft. Return the directory that is its PATH."""

    def missing() -> Any:
        raise OSError("libnftables.so.1: cannot open shared object file")

    monkeypatch.setattr(nft, "_load", missing)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def chain(container: Container) -> list[PluginRunner]:
    """Return the runners of bridge, firewall and portmap after their ADDs."""
    bridge = PluginRunner("bridge", container, **BRIDGE)
    result = bridge.add()
    firewall = PluginRunner("firewall", container, previous=result)
    portmap = PluginRunner("portmap", container, previous=result, runtimeConfig=PORTS)
    firewall.add()
    portmap.add()
    return [bridge, firewall, portmap]


def test_iptables_is_the_default_without_nftables(container: Container, without_nftables: Path) -> None:
    for name in ("iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save"):
        (without_nftables / name).symlink_to(os.path.realpath(f"/usr/sbin/{name}"))
    before = iptables_rules(container)
    runners = chain(container)
    rules = iptables_rules(container)
    assert "CNI-DN-" in rules
    assert "-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT" in rules
    assert "MASQUERADE" in rules
    for runner in runners:
        runner.status()
        runner.check()
    for runner in reversed(runners):
        runner.delete()
        runner.forget()
        runner.delete()
        runner.gc()
    assert "10.1.0.2" in rules
    assert "10.1.0.2" not in iptables_rules(container)
    assert "CNI-DN-" not in before + iptables_rules(container)


def test_error_without_nftables_and_iptables_names_the_package_to_install(
    container: Container, without_nftables: Path
) -> None:
    with pytest.raises(CniError, match="nftables is not available") as caught:
        chain(container)
    assert "libnftables1" in caught.value.details


def iptables_rules(container: Container) -> str:
    """Return the output of iptables-save on the container's host."""
    return container.host.run("/usr/sbin/iptables-save")
