"""The plugin chain of container engines: all plugins in one list, and many containers concurrently."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from pycni.runtime import NetworkConfig, Runtime, RuntimeConf
from pycni.testing import Container, Host
from tests.conftest import run_concurrently


def chain(state: Path, backend: str) -> NetworkConfig:
    """Return bridge, portmap, firewall, tuning and bandwidth, all with the same firewall backend."""
    ipam = {
        "type": "host-local",
        "dataDir": str(state),
        "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]],
    }
    bridge = {"type": "bridge", "bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": backend}
    plugins = [
        {**bridge, "ipam": ipam},
        {"type": "portmap", "backend": backend, "capabilities": {"portMappings": True}},
        {"type": "firewall", "backend": backend, "ingressPolicy": "same-bridge"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "dataDir": str(state / "tuning")},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]
    return NetworkConfig.parse(json.dumps({"cniVersion": "1.1.0", "name": "chain", "plugins": plugins}).encode())


def parameters(container: Container, number: int) -> RuntimeConf:
    ports = [{"hostPort": 9000 + number, "containerPort": 80, "protocol": "tcp"}]
    rates = {"ingressRate": 10_000_000, "ingressBurst": 8_000_000, "egressRate": 0, "egressBurst": 0}
    return RuntimeConf(container.id, container.path, capability_args={"portMappings": ports, "bandwidth": rates})


def shared_rules(host: Host) -> Counter[str]:
    """Count the firewall's lines that name no container, each with its table."""
    lines, table = [], ""
    tables = "nft -t list table inet pycni; nft -t list table bridge pycni"
    for line in host.run(f"{tables}; iptables-save; ip6tables-save").splitlines():
        table = line if line.startswith(("table", "*", "# Generated")) else table
        text = re.sub(r"\[\d+:\d+\]|[#].*|handle \d+", "", line).strip()
        if not re.search(r"10\.1\.0\.\d+(?!/16)|fd00::\w|CNI-(DN-)?[0-9a-f]{21}", text):
            lines.append(f"{table.partition('#')[0]} {text}")
    return Counter(lines)


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_16_concurrent_first_adds_create_each_shared_rule_once(host: Host, tmp_path: Path, backend: str) -> None:
    """The shared rules are those of a single ADD on a new host."""
    containers = [Container(host) for _ in range(16)]
    network, runtime = chain(tmp_path / "state", backend), in_process_runtime(tmp_path)
    configurations = {container.id: parameters(container, number) for number, container in enumerate(containers)}
    run_concurrently(host, lambda c: runtime.add_network_list(network, configurations[c.id]), containers, 16)
    run_concurrently(host, lambda c: runtime.check_network_list(network, configurations[c.id]), containers, 16)
    found = shared_rules(host)
    run_concurrently(host, lambda c: runtime.delete_network_list(network, configurations[c.id]), containers, 16)
    left = host.run("ip -br link; nft list ruleset; iptables-save; ip6tables-save")
    assert "veth" not in left
    assert not [container for container in containers if container.id in left]

    fresh = Host(tmp_path / "fresh")
    fresh.netns.enter_permanently()
    single = Container(fresh)
    in_process_runtime(tmp_path).add_network_list(chain(tmp_path / "other", backend), parameters(single, 0))
    assert found == shared_rules(fresh)
    for netns in (*containers, single, fresh):
        netns.close()


def in_process_runtime(directory: Path) -> Runtime:
    return Runtime(["/nowhere"], cache_dir=directory / "cache", in_process=True)


@pytest.mark.exhaustive
def test_200_concurrent_adds_succeed_without_duplicates(host: Host, tmp_path: Path) -> None:
    containers = [Container(host) for _ in range(200)]
    network, runtime = chain(tmp_path / "state", "nftables"), in_process_runtime(tmp_path)
    configurations = {container.id: parameters(container, number) for number, container in enumerate(containers)}
    run_concurrently(host, lambda c: runtime.add_network_list(network, configurations[c.id]), containers, 32)
    addresses = [path.name for path in (tmp_path / "state" / "chain").iterdir() if path.name[0] in "1f"]
    assert len(addresses) == 400
    assert len(runtime.cached_attachments()) == 200
    assert len(host.json("ip -j link show type veth")) == 200
    gateway = "10.1.0.1"
    assert all(container.pings(gateway) for container in containers[::50])
    run_concurrently(host, lambda c: runtime.delete_network_list(network, configurations[c.id]), containers, 32)
    assert host.json("ip -j link show type veth") == []
    assert runtime.cached_attachments() == []
    assert "id: container" not in host.run("nft list ruleset")
    for container in containers:
        container.close()
