"""Tests that a server loads all modules and builds all models before it reports that it is ready."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.runtime import NetworkConfig, Runtime, RuntimeConf
from pycni.sdk import registry
from pycni.testing import Container, Host

Stage = Any
RecordImports = Callable[[Path], Callable[[], list[str]]]

EVERY_MODEL = """
from pycni.sdk.config import Model
from pycni.server.lifecycle import load_plugins

load_plugins()
models = [Model]
for model in models:
    models += model.__subclasses__()
print(len(models), [model for model in models if not model.__pydantic_complete__])
"""


def test_server_builds_all_models_before_it_is_ready() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODEL], capture_output=True, text=True, check=True)
    number, incomplete = done.stdout.split(maxsplit=1)
    assert int(number) > 19  # one configuration per plugin, and more
    assert incomplete.strip() == "[]"


STATIC = {"type": "static", "addresses": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]}
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
]
KINDS = ("ipvlan", "vlan", "dummy", "vrf")  # link types that a kernel may lack; the networks have the same names
NETWORKS: dict[str, list[dict[str, Any]]] = {
    "chain": [
        {"type": "bridge", "isDefaultGateway": True, "ipMasq": True, "macspoofchk": True, "portIsolation": True},
        {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": PORTS}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400, "allmulti": True},
        {"type": "sbr"},
    ],
    "by iptables": [
        {"type": "bridge", "isGateway": True, "ipMasq": True, "ipMasqBackend": "iptables"},
        {"type": "portmap", "backend": "iptables", "runtimeConfig": {"portMappings": PORTS}},
        {"type": "firewall", "backend": "iptables"},
    ],
    "ptp": [{"type": "ptp", "ipMasq": True}],
    "macvlan": [{"type": "macvlan", "master": "br0", "ipam": STATIC}],
    "ipvlan": [{"type": "ipvlan", "master": "br0", "ipam": STATIC}],
    "vlan": [{"type": "vlan", "master": "br0", "vlanId": 5, "ipam": STATIC}],
    "dummy": [{"type": "dummy", "ipam": STATIC}],
    "vrf": [{"type": "tap", "ipam": STATIC}, {"type": "vrf", "vrfname": "vrf0"}],
    "tap": [{"type": "tap", "ipam": STATIC}],
    "host-device": [{"type": "host-device", "device": "cable", "ipam": STATIC}],
    "loopback": [{"type": "loopback"}],
    "flannel": [{"type": "flannel"}],
}


def network(name: str, host: Host, tmp_path: Path) -> NetworkConfig:
    host_local = {"type": "host-local", "dataDir": str(host.state / "networks"), "subnet": "10.1.0.0/16"}
    plugins = [{**plugin} for plugin in NETWORKS[name]]
    if name in ("chain", "by iptables", "ptp"):
        plugins[0]["ipam"] = host_local
    if name == "flannel":
        subnet_file = tmp_path / "subnet.env"
        subnet_file.write_text(
            "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
        plugins[0] |= {"subnetFile": str(subnet_file), "dataDir": str(host.state / "flannel")}
    return NetworkConfig.parse(json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": plugins}))


def marks(name: str) -> list[pytest.MarkDecorator]:
    needs = [pytest.mark.needs_kernel(name)] if name in KINDS else []
    return needs if name == "chain" else [*needs, pytest.mark.exhaustive]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETWORKS])
def test_no_call_loads_a_module(
    name: str, stage: Stage, host: Host, container: Container, record_imports: RecordImports, tmp_path: Path
) -> None:
    """Covers all plugins except dhcp, which tests/plugins/dhcp/test_resident.py covers."""
    imported_modules = record_imports(stage.modules)
    installation.install(stage.bin, registry.names(), stage.state, socket=stage.socket)
    stage.replace_oneshots()
    host.run("ip link add br0 type bridge && ip link set br0 up && ip link add cable type veth peer name far")
    server = stage.serve()
    runtime = Runtime([str(stage.bin)], cache_dir=tmp_path / "cache")
    config, conf = network(name, host, tmp_path), RuntimeConf(container.id, container.path)
    with host.netns.enter():
        runtime.status_network_list(config)
        runtime.add_network_list(config, conf)
        runtime.check_network_list(config, conf)
        runtime.delete_network_list(config, conf)
        runtime.gc_network_list(config, [])
    server.terminate()
    assert server.wait(30) == 0
    assert imported_modules() == []
    assert " DEL " in (stage.state / "server.log").read_text()


def test_plugin_that_cannot_be_loaded_does_not_affect_the_others(stage: Stage) -> None:
    package = stage.modules / "acme-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[pycni.plugins]\nacme-none = nowhere:Plugin\nacme-odd = acme:Odd\n")
    (stage.modules / "acme.py").write_text("raise SystemExit('no licence')\n")
    server = stage.serve()
    assert stage.run("ADD", PYCNI_ONESHOT_DIR="/nowhere").returncode == 0
    server.terminate()
    assert server.wait(30) == 0
    log = (stage.state / "server.log").read_text()
    assert 'plugin not served: plugin "acme-none" of acme cannot be loaded from nowhere:Plugin' in log
    assert "plugin not served: no licence" in log
