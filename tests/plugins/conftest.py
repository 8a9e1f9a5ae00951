"""What tests of plugins ask for: features of this kernel, and IPAM plugins, which are called without a container."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.sdk.respond import Answer
from pycni.testing import Container, Host, Runtime, calls, wait_for

GO = Path("/usr/lib/cni")  # where Debian has the Go plugins
CALL_PLUGINS = {"host", "host_local", "static"}  # tests with one of these fixtures


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that calls plugins passes in this process, as in the one-shot's, and through a resident server."""
    alone = metafunc.definition.get_closest_marker("direct")
    if CALL_PLUGINS & set(metafunc.fixturenames) and not alone:
        ways = ["direct", pytest.param("served", marks=pytest.mark.exhaustive)]
        metafunc.parametrize("way", ways, indirect=True)


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest) -> None:
    """How the test's calls reach the plugins."""
    if getattr(request, "param", "direct") == "served":
        request.getfixturevalue("through_server")


class GoRuntime(Runtime):
    """A runtime that starts the Go plugin of the same name, in 1.0.0, the newest version that Debian's knows."""

    def _call(self, command: str, extra: dict[str, Any] | None = None) -> Answer:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.cni_args,
            "CNI_PATH": str(GO),
        }
        document = {**self.config, **(extra or {}), "cniVersion": "1.0.0"}
        if document.get("prevResult"):
            document["prevResult"] = {**document["prevResult"], "cniVersion": "1.0.0"}
        done = subprocess.run(
            [str(GO / self.plugin)], env=env, input=json.dumps(document).encode(), capture_output=True, check=False
        )
        if done.returncode:
            raise CniError.from_json(json.loads(done.stdout))
        return Answer(done.stdout.decode())


@pytest.fixture
def go() -> type[Runtime]:
    """The runtime that starts Go plugins."""
    if not GO.is_dir():
        pytest.skip(f"{GO} is missing: apt-get install containernetworking-plugins")
    return GoRuntime


class IpamCaller:
    """Calls an IPAM plugin as a runtime does, for attachments of the network `mynet`."""

    def __init__(self, plugin: str, cni_version: str = "1.1.0", **ipam: Any) -> None:
        self.plugin = plugin
        self.cni_version = cni_version
        self.ipam = {"type": plugin, **ipam}  # what every call has in its section ipam

    def __call__(
        self,
        command: str,
        container_id: str = "c1",
        *,
        ifname: str = "eth0",
        cni_args: str = "",
        ipam: dict[str, Any] | None = None,
        **config: Any,
    ) -> Any:
        """What it answers, None for nothing. Raises CniError."""
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/run/netns/none",
            "CNI_PATH": "/nowhere",
            "CNI_ARGS": cni_args,
        }
        document = {"cniVersion": self.cni_version, "name": "mynet", "type": "ipamtest", **config}
        document["ipam"] = {**self.ipam, **(ipam or {})}
        stdout, status = self.answer(env, json.dumps(document).encode())
        if status:
            raise CniError.from_json(json.loads(stdout))
        return json.loads(stdout) if stdout else None

    def answer(self, env: dict[str, str], stdin: bytes) -> tuple[str, int]:
        reply = calls.call(self.plugin, env, stdin)
        return reply.stdout, reply.status


class GoIpamCaller(IpamCaller):
    """The same for the Go plugin."""

    def answer(self, env: dict[str, str], stdin: bytes) -> tuple[str, int]:
        done = subprocess.run(
            [str(GO / self.plugin)], env={**os.environ, **env}, input=stdin, capture_output=True, check=False
        )
        return done.stdout.decode(), done.returncode


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where host-local has the stores of all networks."""
    return tmp_path / "networks"


@pytest.fixture
def store(data_dir: Path) -> Path:
    """The directory with the allocations of the network `mynet`."""
    return data_dir / "mynet"


@pytest.fixture
def host_local(data_dir: Path) -> Callable[..., Any]:
    return IpamCaller("host-local", dataDir=str(data_dir))


@pytest.fixture
def go_host_local(data_dir: Path) -> Callable[..., Any]:
    if not (GO / "host-local").exists():
        pytest.skip(f"{GO}/host-local is missing: apt-get install containernetworking-plugins")
    return GoIpamCaller("host-local", "1.0.0", dataDir=str(data_dir))


@pytest.fixture
def static() -> Callable[..., Any]:
    return IpamCaller("static")


@pytest.fixture
def without_vlan_filtering(kernel_has: Callable[[str], bool]) -> None:
    """The kernel lacks bridge VLAN filtering."""
    if kernel_has("bridge VLAN filtering"):
        pytest.skip("needs a kernel without bridge VLAN filtering")


@pytest.fixture
def outside(host: Host) -> Iterator[Container]:
    """The world outside the host, 192.0.2.2 and 2001:db8::2; it has no route to anything behind the host."""
    world = Container(host)
    host.run(f"ip link add up0 type veth peer name eth0 netns {world.path}")
    host.run("sysctl -q net.ipv6.conf.up0.accept_dad=0")
    host.run("ip addr add 192.0.2.1/30 dev up0 && ip addr add 2001:db8::1/126 dev up0 nodad && ip link set up0 up")
    world.run("ip addr add 192.0.2.2/30 dev eth0 && ip addr add 2001:db8::2/126 dev eth0 nodad && ip link set eth0 up")
    wait_for(lambda: "state UP" in host.run("ip link show up0") and "state UP" in world.run("ip link show eth0"), "up0")
    yield world
    world.close()
