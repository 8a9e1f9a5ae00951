"""flannel: delegation, the files that it keeps, and traffic between pods of two nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.flannel.subnet_env import SubnetEnv

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change
from pycni.testing.snapshot import of_host

ENV = """
FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16,10.244.0.0/16
FLANNEL_SUBNET=10.244.{node}.1/24
FLANNEL_IPV6_NETWORK=fd10::/48
FLANNEL_IPV6_SUBNET=fd10:0:0:{node}::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ={masq}
"""

CreateRunner = Callable[..., PluginRunner]


@pytest.fixture
def make(container: Container, tmp_path: Path) -> CreateRunner:
    """Return a function that creates a runner of flannel with a subnet.env of the test."""
    path = tmp_path / "subnet.env"
    path.write_text(ENV.format(node=1, masq="true"))

    def runner(of: Container = container, **config: Any) -> PluginRunner:
        return flannel(of, path, **config)

    return runner


def flannel(container: Container, subnet_file: Path, ifname: str = "eth0", **config: Any) -> PluginRunner:
    state = container.host.state
    options = {"subnetFile": str(subnet_file), "dataDir": str(state / "flannel")}
    ipam = {"dataDir": str(state / "networks"), **config.pop("ipam", {})}
    return PluginRunner("flannel", container, ifname=ifname, **{**options, "ipam": ipam, **config})


def delegated_files(runner: PluginRunner) -> dict[str, Any]:
    """Return the delegated configurations that flannel has stored, by file name."""
    directory = Path(runner.config["dataDir"])
    return (
        {path.name: json.loads(path.read_text()) for path in sorted(directory.iterdir())} if directory.is_dir() else {}
    )


def test_delegate_gets_the_subnets_of_the_node(make: CreateRunner, container: Container) -> None:
    runner = make(delegate={"hairpinMode": True, "isDefaultGateway": True}, ipam={"routes": [{"dst": "172.16.0.0/12"}]})
    result = runner.add()
    assert [ip["address"] for ip in result["ips"]] == ["10.244.1.2/24", "fd10:0:0:1::2/64"]
    assert [route["dst"] for route in result["routes"]][:4] == [
        "172.16.0.0/12",
        "10.244.0.0/16",
        "10.245.0.0/16",
        "fd10::/48",
    ]
    delegated = delegated_files(runner)[f"{container.id}:eth0"]
    assert delegated == {
        "cniVersion": "1.1.0",
        "name": "test",
        "type": "bridge",
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "dataDir": str(container.host.state / "networks"),
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd10:0:0:1::/64"}]],
            "routes": [{"dst": d} for d in ("172.16.0.0/12", "10.244.0.0/16", "10.245.0.0/16", "fd10::/48")],
        },
    }
    assert "mtu 1450" in container.run("ip link show eth0")
    assert container.pings("10.244.1.1")
    runner.check()


def test_stored_configuration_is_private_and_has_the_go_plugins_format(
    make: CreateRunner, container: Container
) -> None:
    runner = make()
    runner.add()
    directory = Path(runner.config["dataDir"])
    assert directory.stat().st_mode & 0o777 == 0o700
    for name in (container.id, f"{container.id}:eth0"):
        text = (directory / name).read_text()
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
        assert (directory / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("word", "masquerades"), [("true", True), ("false", False), ("True", False), ("1", False)])
def test_ip_masq_is_set_only_by_the_word_true(word: str, masquerades: bool) -> None:  # noqa: FBT001
    assert SubnetEnv.parse(ENV.format(node=1, masq=word)).ip_masq == masquerades


def test_members_of_delegate_override_defaults(make: CreateRunner, container: Container, tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_text(ENV.format(node=1, masq="false"))
    runner = make(delegate={"type": "ptp", "mtu": 1300}, runtimeConfig={"mac": "02:00:00:00:00:01"})
    runner.add()
    delegated = delegated_files(runner)[f"{container.id}:eth0"]
    assert (delegated["type"], delegated["mtu"], delegated["ipMasq"]) == ("ptp", 1300, True)
    assert "isGateway" not in delegated
    assert delegated["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}
    runner.check()
    runner.delete()
    assert delegated_files(runner) == {}


@pytest.mark.parametrize(
    ("env", "addresses"),
    [
        ("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n", ["10.244.7.2/24"]),
        ("FLANNEL_IPV6_NETWORK=fd10::/48\nFLANNEL_IPV6_SUBNET=fd10:0:0:7::1/64\n", ["fd10:0:0:7::2/64"]),
    ],
)
def test_one_address_family_is_sufficient(make: CreateRunner, tmp_path: Path, env: str, addresses: list[str]) -> None:
    (tmp_path / "subnet.env").write_text(f"{env}FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\nSOMETHING=else\n")
    assert [ip["address"] for ip in make().add()["ips"]] == addresses


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("FLANNEL_NETWORK=10.244.0.0/16", "is missing FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        ("", "is missing FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        ("FLANNEL_MTU", 'has a line "FLANNEL_MTU" without "="'),
        ("FLANNEL_SUBNET=here", 'has an invalid FLANNEL_SUBNET: "here"'),
        ("FLANNEL_NETWORK=10.244.0.0", 'has an invalid FLANNEL_NETWORK: "10.244.0.0"'),
        (ENV.format(node=1, masq="true").replace("1450", "many"), 'has an invalid FLANNEL_MTU: "many"'),
    ],
)
def test_error_for_an_invalid_subnet_env_names_the_line_or_variable(
    make: CreateRunner, host: Host, tmp_path: Path, env: str, message: str
) -> None:
    """Go: panic at a line without "="."""
    (tmp_path / "subnet.env").write_text(env)
    before = of_host(host)
    with pytest.raises(CniError, match=f"failed to load flannel 'subnet.env' file: .*{message}") as caught:
        make().add()
    assert caught.value.code == 7
    assert of_host(host) == before
    make().delete()


def test_status_fails_with_code_50_without_subnet_env(make: CreateRunner, tmp_path: Path) -> None:
    make().status()
    (tmp_path / "subnet.env").unlink()
    with pytest.raises(
        CniError, match=r"open .*subnet.env: no such file or directory. Check the flannel pod log"
    ) as caught:
        make().status()
    assert caught.value.code == 50


@pytest.mark.parametrize(
    ("delegate", "message"),
    [
        ({"name": "x"}, "must not have 'name' field"),
        ({"ipam": {}}, "must not have 'ipam' field"),
        ({"type": 1}, "must have \\(string\\) 'type' field"),
        ("bridge", "delegate: "),
    ],
)
def test_invalid_delegate_is_refused(make: CreateRunner, delegate: Any, message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        make(delegate=delegate).add()
    assert caught.value.code == 7
    make(delegate=delegate).delete()


@pytest.mark.parametrize(("routes", "message"), [("10.0.0.0/8", "use a list of routes"), ([{"dst": 7}], "routes")])
def test_invalid_routes_are_refused(make: CreateRunner, routes: Any, message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        make(ipam={"routes": routes}).add()
    assert caught.value.code == 7
    assert delegated_files(make()) == {}


def test_routes_can_be_null(make: CreateRunner) -> None:
    assert make(ipam={"routes": None}).add()["routes"][0]["dst"] == "10.244.0.0/16"


def test_error_names_a_missing_delegate_and_no_file_is_left(make: CreateRunner) -> None:
    runner = make(delegate={"type": "nosuch"})
    with pytest.raises(CniError, match='failed to find plugin "nosuch"'):
        runner.add()
    assert delegated_files(runner) == {}
    runner.delete()


def test_two_interfaces_of_a_container_have_their_own_files(
    make: CreateRunner, container: Container, host: Host
) -> None:
    """Go: the second ADD overwrites the file of the first, so only one DEL finds it."""
    both = [make(ifname=ifname) for ifname in ("eth0", "eth1")]
    both[0].add()
    both[1].config["delegate"] = {"type": "ptp"}
    both[1].add()
    assert len(delegated_files(both[0])) == 3
    both[0].delete()
    assert delegated_files(both[0]).keys() == {container.id, f"{container.id}:eth1"}
    both[1].check()
    both[1].delete()
    assert delegated_files(both[0]) == {}
    assert "veth" not in host.run("ip link")
    assert not [path for path in (host.state / "networks" / "test").iterdir() if path.name.startswith(("10.", "fd10"))]


def test_stored_configuration_is_kept_if_the_delegates_del_fails(make: CreateRunner) -> None:
    """Go: it is deleted even then."""
    runner = make()
    runner.add()
    for path in Path(runner.config["dataDir"]).iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "type": "nosuch"}))
    with pytest.raises(CniError, match="nosuch"):
        runner.delete()
    assert len(delegated_files(runner)) == 2
    for path in Path(runner.config["dataDir"]).iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "type": "bridge"}))
    runner.delete()
    assert delegated_files(runner) == {}


def test_failed_repeated_add_keeps_the_stored_configuration(make: CreateRunner, tmp_path: Path) -> None:
    runner = make()
    runner.add()
    before = delegated_files(runner)
    (tmp_path / "subnet.env").write_text(ENV.format(node=9, masq="false"))
    with pytest.raises(CniError, match="eth0"):
        make().add()
    assert delegated_files(runner) == before
    runner.check()


def test_check_calls_the_delegate_with_the_stored_configuration(
    make: CreateRunner, container: Container, tmp_path: Path
) -> None:
    runner = make()
    runner.add()
    (tmp_path / "subnet.env").write_text(ENV.format(node=9, masq="false"))
    runner.check()
    container.run("ip addr del 10.244.1.2/24 dev eth0")
    with pytest.raises(CniError, match="eth0 has lost 10.244.1.2/24"):
        runner.check()


def test_del_uses_the_stored_configuration_after_subnet_env_has_changed(
    make: CreateRunner, host: Host, tmp_path: Path
) -> None:
    runner = make()
    runner.add()
    (tmp_path / "subnet.env").write_text(ENV.format(node=9, masq="false"))
    runner.delete()
    assert "veth" not in host.run("ip link")
    assert delegated_files(runner) == {}


@pytest.mark.parametrize("loss", ["lost", "damaged"])
def test_del_succeeds_without_the_stored_configuration(make: CreateRunner, host: Host, loss: str) -> None:
    runner = make()
    runner.add()
    for path in Path(runner.config["dataDir"]).iterdir():
        path.unlink() if loss == "lost" else path.write_text("{")
    runner.delete()
    assert "veth" not in host.run("ip link")


def test_gc_deletes_attachments_and_files_without_a_valid_attachment(
    make: CreateRunner, containers: list[Container], host: Host
) -> None:
    one, other, _ = (make(of=container) for container in containers)
    one.add()
    other.add()
    other_network = make(of=containers[2], name="elsewhere")
    other_network.add()
    other.gc(other)
    assert delegated_files(one).keys() == {
        *(containers[1].id, f"{containers[1].id}:eth0"),
        *(containers[2].id, f"{containers[2].id}:eth0"),
    }
    assert len(host.json("ip -j link show type veth")) == 2
    other.check()
    other_network.check()


CASES: dict[str, dict[str, Any]] = {"bridge": {}, "ptp": {"delegate": {"type": "ptp"}}}
by_case = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


@by_case
def test_add_check_and_del_leave_nothing_behind(make: CreateRunner, case: dict[str, Any]) -> None:
    check_lifecycle(make(**case))


@by_case
def test_failed_add_leaves_nothing_behind(make: CreateRunner, case: dict[str, Any]) -> None:
    assert fail_at_every_change(lambda: make(**case)) > 5


@by_case
@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(make: CreateRunner, case: dict[str, Any]) -> None:
    assert kill_at_every_change(lambda: make(**case)) > 5


def test_del_uses_and_deletes_the_file_of_the_go_plugin(make: CreateRunner, host: Host, container: Container) -> None:
    """Its name is the container ID."""
    runner = make()
    runner.add()
    (Path(runner.config["dataDir"]) / f"{container.id}:eth0").unlink()
    runner.config["delegate"] = {"type": "nosuch"}
    runner.delete()
    assert delegated_files(runner) == {}
    assert "veth" not in host.run("ip link")


def test_gc_deletes_files_of_the_go_plugin_without_a_valid_attachment(
    make: CreateRunner, containers: list[Container]
) -> None:
    one, other, _ = (make(of=container) for container in containers)
    for runner in (one, other):
        runner.add()
        (Path(runner.config["dataDir"]) / f"{runner.container.id}:eth0").unlink()
    other.gc(other)
    assert delegated_files(one).keys() == {containers[1].id}


class Node:
    """A node of the cluster: a host with one pod and the routes that flannel's daemon creates."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.host = Host(directory / f"node{number}")
        self.pod = Container(self.host)
        self.host.run("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1")
        self.host.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
        self.subnet_file = directory / f"subnet{number}.env"
        self.subnet_file.write_text(ENV.format(node=number, masq="true"))

    def join(self, other: "Node") -> None:
        """Connect the nodes by a veth pair with the addresses 192.0.2.<number> and 2001:db8::<number>."""
        self.host.run(f"ip link add up0 type veth peer name up0 netns {other.host.path}")
        for node in (self, other):
            node.host.run(f"ip addr add 192.0.2.{node.number}/24 dev up0; ip link set up0 up")
            node.host.run(f"ip addr add 2001:db8::{node.number}/64 dev up0 nodad")

    def vxlan(self) -> None:
        """Create the tunnel interfaces of the daemon's vxlan backend; the MAC contains the number of the node."""
        for name, number, local in (("flannel.1", 1, "192.0.2"), ("flannel-v6.1", 1, "2001:db8:")):
            family = "" if "." in local else "-6 "
            own = f"{local}{'.' if not family else ':'}{self.number}"
            self.host.run(
                f"ip {family}link add {name} address {self._mac(self.number)} type vxlan id {number} dev up0 "
                f"local {own} dstport {8472 if not family else 8473} nolearning; ip link set {name} up"
            )
        self.host.run(f"ip addr add 10.244.{self.number}.0/32 dev flannel.1")
        self.host.run(f"ip addr add fd10:0:0:{self.number}::/128 dev flannel-v6.1 nodad")

    def vxlan_to(self, other: "Node") -> None:
        """Create the routes and neighbour entries that the daemon's vxlan backend creates for another node."""
        n, mac = other.number, self._mac(other.number)
        self.host.run(
            f"ip route add 10.244.{n}.0/24 via 10.244.{n}.0 dev flannel.1 onlink;"
            f"ip neigh add 10.244.{n}.0 lladdr {mac} dev flannel.1;"
            f"bridge fdb add {mac} dev flannel.1 dst 192.0.2.{n};"
            f"ip route add fd10:0:0:{n}::/64 via fd10:0:0:{n}:: dev flannel-v6.1 onlink;"
            f"ip neigh add fd10:0:0:{n}:: lladdr {mac} dev flannel-v6.1;"
            f"bridge fdb add {mac} dev flannel-v6.1 dst 2001:db8::{n}"
        )

    def host_gw_to(self, other: "Node") -> None:
        """Create the routes that the daemon's host-gw backend creates for another node."""
        n = other.number
        self.host.run(f"ip route add 10.244.{n}.0/24 via 192.0.2.{n}; ip route add fd10:0:0:{n}::/64 via 2001:db8::{n}")

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Enter the network namespace of the node."""
        with self.host.netns.enter():
            yield

    @staticmethod
    def _mac(number: int) -> str:
        return f"02:00:00:00:00:{number:02x}"


@pytest.fixture
def nodes(host: Host, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    one, other = Node(1, tmp_path), Node(2, tmp_path)
    one.join(other)
    yield one, other
    for node in (one, other):
        node.pod.close()
        node.host.close()


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_pods_of_two_nodes_reach_each_other(nodes: tuple[Node, Node], backend: str) -> None:
    one, other = nodes
    for node, peer in ((one, other), (other, one)):
        if backend == "vxlan":
            node.vxlan()
            node.vxlan_to(peer)
        else:
            node.host_gw_to(peer)
    runners = []
    for node in nodes:
        with node.enter():
            runner = flannel(node.pod, node.subnet_file, delegate={"isDefaultGateway": True})
            runner.add()
            runner.check()
        runners.append(runner)
    for node, peer in ((one, other), (other, one)):
        assert node.pod.pings(f"10.244.{peer.number}.2")
        assert node.pod.pings(f"fd10:0:0:{peer.number}::2")
        # Packets up to the MTU of the tunnel are sent without fragmentation.
        assert node.pod.run(f"ping -c1 -W2 -M do -s 1422 10.244.{peer.number}.2")
    for node, runner in zip(nodes, runners, strict=True):
        with node.enter():
            runner.delete()
    assert "veth" not in one.host.run("ip link show type veth | grep -v up0", check=False)


def test_default_configuration_of_kube_flannel_works_with_the_executables(
    host: Host, container: Container, bin_directory: Path
) -> None:
    """Called by `pycni`."""
    directory = host.state
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "subnet.env").write_text(ENV.format(node=1, masq="true"))
    conflist = {
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            {
                "type": "flannel",
                "subnetFile": str(directory / "subnet.env"),
                "dataDir": str(directory / "flannel"),
                "ipam": {"dataDir": str(directory / "networks")},
                "delegate": {"hairpinMode": True, "isDefaultGateway": True},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (directory / "10-flannel.conflist").write_text(json.dumps(conflist))

    def pycni(command: str) -> str:
        env = {**os.environ, "NETCONFPATH": str(directory), "CNI_PATH": str(bin_directory)}
        line = [sys.executable, "-m", "pycni", command, "cbr0", container.path, "--cache-dir", directory / "cache"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    result = json.loads(pycni("add"))
    assert result["ips"][0]["address"] == "10.244.1.2/24"
    assert container.pings("10.244.1.1")
    pycni("del")
    assert not list((directory / "flannel").iterdir())
