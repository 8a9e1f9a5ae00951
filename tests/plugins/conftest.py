"""What tests of plugins ask for: features of this kernel, and IPAM plugins, which are called without a container."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.sdk.dispatch import Response
from pycni.testing import Container, Host, PluginRunner, transport, wait_for

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


@dataclass(frozen=True, slots=True)
class GoPlugins:
    """A directory of the Go plugins, and the newest version of CNI that they know."""

    name: str
    directory: Path
    cni_version: str

    def speak(self, cni_version: str) -> str:
        """What to speak with them where ours speak this."""
        return min(cni_version, self.cni_version)  # all there are have numbers of one digit


# Those of the Debian that runs the tests, and those that scripts/setup has unpacked of a newer one's, if it could.
DEBIANS = GoPlugins("go1.1", Path("/usr/lib/cni"), "1.0.0")
NEWER = GoPlugins("go1.9", Path(sys.prefix) / "peers/usr/lib/cni", "1.1.0")


@pytest.fixture(params=[DEBIANS, *([NEWER] if NEWER.directory.is_dir() else [])], ids=lambda plugins: plugins.name)
def go_plugins(request: pytest.FixtureRequest) -> GoPlugins:
    """The Go plugins of one version and the other."""
    plugins: GoPlugins = request.param
    if not plugins.directory.is_dir():
        pytest.skip(f"{plugins.directory} is missing: apt-get install containernetworking-plugins")
    return plugins


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What old Go plugins do not know is not asked of them: skipped, it would look like something to be made up for."""
    asked = [item for item in items if item.get_closest_marker("newer_go") and _go_plugins_of(item) == DEBIANS]
    if asked:
        config.hook.pytest_deselected(items=asked)
        items[:] = [item for item in items if item not in asked]


def _go_plugins_of(item: pytest.Item) -> GoPlugins:
    plugins: GoPlugins = item.callspec.params["go_plugins"]  # type: ignore[attr-defined] # for a function's parameters
    return plugins


class GoRuntime(PluginRunner):
    """A runtime that starts the Go plugin of the same name."""

    plugins: GoPlugins

    def _call(self, command: str, extra: dict[str, Any] | None = None) -> Response:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.cni_args,
            "CNI_PATH": str(self.plugins.directory),
        }
        version = self.plugins.speak(self.config["cniVersion"])
        document = {**self.config, **(extra or {}), "cniVersion": version}
        if document.get("prevResult"):
            document["prevResult"] = {**document["prevResult"], "cniVersion": version}
        done = subprocess.run(
            [self.plugins.directory / self.plugin],
            env=env,
            input=json.dumps(document).encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise CniError.from_json(json.loads(done.stdout))
        return Response(done.stdout.decode())


@pytest.fixture
def go(go_plugins: GoPlugins) -> type[PluginRunner]:
    """The runtime that starts Go plugins."""

    class Chosen(GoRuntime):
        plugins = go_plugins

    return Chosen


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
        reply = transport.call(self.plugin, env, stdin)
        return reply.stdout, reply.status


class GoIpamCaller(IpamCaller):
    """The same for the Go plugin."""

    plugins: GoPlugins

    def answer(self, env: dict[str, str], stdin: bytes) -> tuple[str, int]:
        executable = self.plugins.directory / self.plugin
        done = subprocess.run([executable], env={**os.environ, **env}, input=stdin, capture_output=True, check=False)
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
def go_host_local(go_plugins: GoPlugins, data_dir: Path) -> Callable[..., Any]:
    caller = GoIpamCaller("host-local", go_plugins.cni_version, dataDir=str(data_dir))
    caller.plugins = go_plugins
    return caller


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
