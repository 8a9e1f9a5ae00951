"""Which firewall is used where none is named: nftables, unless the machine has iptables alone."""

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
    """A machine without libnftables and nft; returns the directory of all the programs that it has."""

    def missing() -> Any:
        raise OSError("libnftables.so.1: cannot open shared object file")

    monkeypatch.setattr(nft, "_load", missing)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def chain(container: Container) -> list[PluginRunner]:
    """The runtimes of bridge, firewall and portmap after their ADDs."""
    bridge = PluginRunner("bridge", container, **BRIDGE)
    result = bridge.add()
    firewall = PluginRunner("firewall", container, previous=result)
    portmap = PluginRunner("portmap", container, previous=result, runtimeConfig=PORTS)
    firewall.add()
    portmap.add()
    return [bridge, firewall, portmap]


def test_a_machine_with_iptables_alone_uses_it(container: Container, without_nftables: Path) -> None:
    for name in ("iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save"):
        (without_nftables / name).symlink_to(os.path.realpath(f"/usr/sbin/{name}"))
    before = saved(container)
    runtimes = chain(container)
    rules = saved(container)
    assert "CNI-DN-" in rules
    assert "-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT" in rules
    assert "MASQUERADE" in rules
    for runtime in runtimes:
        runtime.status()
        runtime.check()
    for runtime in reversed(runtimes):
        runtime.delete()
        runtime.forget()
        runtime.delete()
        runtime.gc()
    assert "10.1.0.2" in rules
    assert "10.1.0.2" not in saved(container)
    assert "CNI-DN-" not in before + saved(container)


def test_a_machine_with_neither_is_told_what_to_install(container: Container, without_nftables: Path) -> None:
    with pytest.raises(CniError, match="nftables is not available") as caught:
        chain(container)
    assert "libnftables1" in caught.value.details


def saved(container: Container) -> str:
    """The rules of iptables on the container's host."""
    return container.host.run("/usr/sbin/iptables-save")
