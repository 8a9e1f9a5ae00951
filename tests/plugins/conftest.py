"""Fixtures for tests of plugins: kernel features, Go plugins, and IPAM plugins called without a container."""

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
from pycni.testing.snapshot import of_host

CALL_PLUGINS = {"host", "host_local", "static"}  # tests with one of these fixtures


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that calls plugins twice: in this process as a one-shot call, and through a resident server."""
    only_direct = metafunc.definition.get_closest_marker("direct")
    if CALL_PLUGINS & set(metafunc.fixturenames) and not only_direct:
        modes = ["direct", pytest.param("served", marks=pytest.mark.exhaustive)]
        metafunc.parametrize("call_mode", modes, indirect=True)


@pytest.fixture(autouse=True)
def call_mode(request: pytest.FixtureRequest) -> None:
    """Select how the test calls plugins: "direct" in this process, or "served" through a server."""
    if getattr(request, "param", "direct") == "served":
        request.getfixturevalue("through_server")


@dataclass(frozen=True, slots=True)
class GoPlugins:
    """A directory with Go plugins, and the newest CNI version that they support."""

    name: str
    directory: Path
    cni_version: str

    def supported_version(self, cni_version: str) -> str:
        """Return `cni_version`, or the newest version that these plugins support if that is lower."""
        return min(cni_version, self.cni_version)  # comparing text works: every number of a CNI version has one digit


# The plugins of the Debian release that runs the tests, and those of a newer release if scripts/setup could unpack
# them.
DEBIAN_PLUGINS = GoPlugins("go1.1", Path("/usr/lib/cni"), "1.0.0")
NEWER_PLUGINS = GoPlugins("go1.9", Path(sys.prefix) / "peers/usr/lib/cni", "1.1.0")


@pytest.fixture(
    params=[DEBIAN_PLUGINS, *([NEWER_PLUGINS] if NEWER_PLUGINS.directory.is_dir() else [])],
    ids=lambda plugins: plugins.name,
)
def go_plugins(request: pytest.FixtureRequest) -> GoPlugins:
    """Return the Go plugins, each installed version in turn."""
    plugins: GoPlugins = request.param
    if not plugins.directory.is_dir():
        pytest.skip(f"{plugins.directory} is missing: apt-get install containernetworking-plugins")
    return plugins


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests marked `newer_go` for the older Go plugins. A skip would count as a missing prerequisite."""
    unsupported = [
        item for item in items if item.get_closest_marker("newer_go") and _go_plugins_of(item) == DEBIAN_PLUGINS
    ]
    if unsupported:
        config.hook.pytest_deselected(items=unsupported)
        items[:] = [item for item in items if item not in unsupported]


def _go_plugins_of(item: pytest.Item) -> GoPlugins:
    plugins: GoPlugins = item.callspec.params["go_plugins"]  # type: ignore[attr-defined] # set by parametrize
    return plugins


class ExecutableRunner(PluginRunner):
    """Runs the executable of the plugin in a directory."""

    directory: Path

    def _call(self, command: str, extra: dict[str, Any] | None = None) -> Response:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.cni_args,
            "CNI_PATH": str(self.directory),
            "PYCNI_ONESHOT_DIR": "/nowhere",  # an executable of pycni fails if its server does not answer
        }
        document = json.dumps(self._document({**self.config, **(extra or {})})).encode()
        executable = self.directory / self.plugin
        done = subprocess.run([executable], env=env, input=document, capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise CniError.from_json(json.loads(done.stdout))
        return Response(done.stdout.decode())

    def _document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return what the executable reads from stdin."""
        return document


class GoPluginRunner(ExecutableRunner):
    """Runs the Go plugin of the same name, with the newest CNI version that it supports."""

    plugins: GoPlugins

    def _document(self, document: dict[str, Any]) -> dict[str, Any]:
        version = self.plugins.supported_version(document["cniVersion"])
        if document.get("prevResult"):
            document["prevResult"] = {**document["prevResult"], "cniVersion": version}
        return {**document, "cniVersion": version}


@pytest.fixture
def go_runner(go_plugins: GoPlugins) -> type[PluginRunner]:
    """Return the runner class for the Go plugins."""

    class Runner(GoPluginRunner):
        directory = go_plugins.directory
        plugins = go_plugins

    return Runner


class IpamCaller:
    """Calls an IPAM plugin as a runtime does, for attachments of the network "mynet"."""

    def __init__(self, plugin: str, cni_version: str = "1.1.0", **ipam: Any) -> None:
        self.plugin = plugin
        self.cni_version = cni_version
        self.ipam = {"type": plugin, **ipam}  # in the `ipam` section of every call

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
        """Return the result, None for empty output. Raise CniError if the plugin fails."""
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
    """Calls the executable of the Go IPAM plugin."""

    plugins: GoPlugins

    def answer(self, env: dict[str, str], stdin: bytes) -> tuple[str, int]:
        executable = self.plugins.directory / self.plugin
        done = subprocess.run([executable], env={**os.environ, **env}, input=stdin, capture_output=True, check=False)
        return done.stdout.decode(), done.returncode


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """host-local's data directory, which holds the stores of all networks."""
    return tmp_path / "networks"


@pytest.fixture
def store(data_dir: Path) -> Path:
    """The directory with the reservations of the network "mynet"."""
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
    """Skip the test if the kernel supports bridge VLAN filtering."""
    if kernel_has("bridge VLAN filtering"):
        pytest.skip("needs a kernel without bridge VLAN filtering")


@pytest.fixture
def outside(host: Host) -> Iterator[Container]:
    """A machine outside the host, 192.0.2.2 and 2001:db8::2, without routes to networks behind the host."""
    machine = Container(host)
    host.run(f"ip link add up0 type veth peer name eth0 netns {machine.path}")
    host.run("sysctl -q net.ipv6.conf.up0.accept_dad=0")
    host.run("ip addr add 192.0.2.1/30 dev up0 && ip addr add 2001:db8::1/126 dev up0 nodad && ip link set up0 up")
    machine.run(
        "ip addr add 192.0.2.2/30 dev eth0 && ip addr add 2001:db8::2/126 dev eth0 nodad && ip link set eth0 up"
    )
    wait_for(
        lambda: "state UP" in host.run("ip link show up0") and "state UP" in machine.run("ip link show eth0"), "up0"
    )
    yield machine
    machine.close()


def failing_ipam(host: Host) -> dict[str, str]:
    """Create an IPAM plugin whose ADD and STATUS fail with code 50, and return its configuration."""
    binary = host.state / "bin" / "empty"
    binary.parent.mkdir(parents=True, exist_ok=True)
    answer = json.dumps({"cniVersion": "1.1.0", "code": 50, "msg": "the pool is dry"})
    binary.write_text(f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\necho '{answer}'\nexit 1\n")
    binary.chmod(0o755)
    return {"type": "empty"}


def host_without_owner_index(host: Host) -> set[str]:
    """Return the host's snapshot without host-local's owner index, which the Go plugins do not update."""
    return {line for line in of_host(host) if ".owners " not in line}
