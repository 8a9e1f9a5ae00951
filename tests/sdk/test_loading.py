"""Tests of the modules that a one-shot process loads: each verb imports only what it needs, to start fast."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.protocol import version
from pycni.sdk import registry
from pycni.sdk.stub import Stub
from pycni.testing import Container, Host

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}], "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}


@pytest.fixture(scope="module")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with every plugin as a Python script, installed without the compiled launcher."""
    directory = tmp_path_factory.mktemp("scripts") / "bin"
    installation.install(directory, state=directory.with_name("state"), python=True)
    return directory


def modules_of(executable: Path, command: str, config: dict[str, object]) -> set[str]:
    """Return the modules that one call imports, as reported by `python -X importtime`."""
    launcher = Stub.read(str(executable))
    assert launcher is not None
    options = "-IS" if launcher.path else "-I"
    done = subprocess.run(
        [launcher.interpreter, options, "-X", "importtime", executable],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "id",
            "CNI_NETNS": "/nowhere",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(executable.parent),
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def executed_by(executable: Path, command: str, config: dict[str, object], netns: str) -> set[str]:
    """Return the files of the modules that one call executes, without lazily imported modules that it does not use."""
    harness = f"""
import os, runpy, sys
files, leave = set(), os._exit
sys.addaudithook(lambda event, args: event == "exec" and files.add(args[0].co_filename))
os._exit = lambda status: (print(*files, sep="\\n", file=sys.stderr), sys.stderr.flush(), leave(status))
runpy.run_path({str(executable)!r})
"""
    env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "id", "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
    done = subprocess.run(
        [sys.executable, "-IS", "-c", harness],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        env=env | {"CNI_PATH": str(executable.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return {
        re.sub(r".*/(?:site-packages|python3\.\d+)/|<frozen (.*)>", r"\1", line) for line in done.stderr.splitlines()
    }


def with_ipam(plugin: str, state: Path) -> dict[str, object]:
    """Return a configuration of this IPAM plugin with its state in a directory of the test."""
    ipam = {**CONFIG["ipam"], "type": plugin, "dataDir": str(state)}
    return {**CONFIG, "ipam": ipam, "cni.dev/valid-attachments": []}


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("plugin", registry.names())
def test_version_starts_no_python(bin_directory: Path, tmp_path: Path, plugin: str) -> None:
    """podman asks every plugin of every network for its versions, at each command."""
    launcher = Stub.read(str(bin_directory / plugin))
    assert launcher is not None
    executable = tmp_path / plugin
    executable.write_text(replace(launcher, interpreter="/nowhere/python3").script())
    executable.chmod(0o755)
    done = subprocess.run([executable], env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True)
    assert done.stdout == version.encode_reply(registry.load(plugin).versions)
    assert subprocess.run([executable], env={}, capture_output=True, check=False).returncode != 0


def test_add_loads_only_the_firewall_code_that_it_uses(host: Host, container: Container, bin_directory: Path) -> None:
    config = {
        "cniVersion": "1.1.0",
        "name": "net",
        "bridge": "br0",
        "ipMasq": True,
        "ipam": CONFIG["ipam"] | {"type": "static"},
    }
    loaded = executed_by(bin_directory / "bridge", "ADD", config, container.path)
    assert "pycni/kernel/firewall/nftables/masquerade.py" in loaded
    unused = re.compile(r".*/(iptables/[^_].*|firewalld/[^_].*|shaping|host_ports(/[^_].*)?)\.py")
    assert not [name for name in loaded if unused.fullmatch(name)]
    assert not loaded & {"subprocess.py", "importlib/metadata/__init__.py"}


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS", "GC"])
@pytest.mark.parametrize("plugin", ["host-local", "static"])
def test_ipam_never_loads_pyroute2(bin_directory: Path, tmp_path: Path, plugin: str, command: str) -> None:
    modules = modules_of(bin_directory / plugin, command, with_ipam(plugin, tmp_path))
    assert not packages(modules) & {"pyroute2", "pydantic"}
    assert "pycni.pydantic_subset" in modules


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_dhcp_client_does_not_load_the_daemon(bin_directory: Path, tmp_path: Path, command: str) -> None:
    config = {**with_ipam("dhcp", tmp_path), "ipam": {"type": "dhcp", "daemonSocketPath": str(tmp_path / "none")}}
    modules = modules_of(bin_directory / "dhcp", command, config)
    assert not packages(modules) & {"pyroute2", "asyncio", "pydantic"}
    assert "pycni.pydantic_subset" in modules


def test_only_a_plugin_that_needs_pydantic_loads_it(bin_directory: Path) -> None:
    """host-device stores a dataclass in a model, which pydantic_subset does not support."""
    stubs = [Stub.read(str(bin_directory / plugin)) for plugin in registry.names()]
    assert [stub.type for stub in stubs if stub and stub.needs_pydantic] == ["host-device"]


def test_add_of_loopback_executes_few_modules(container: Container, bin_directory: Path) -> None:
    """Each module takes 0.1 to 3 ms of a call of 50 ms."""
    loaded = executed_by(bin_directory / "loopback", "ADD", CONFIG | {"ipam": {}}, container.path)
    assert "pycni/kernel/netlink/codec.py" in loaded
    unused = {"copy.py", "inspect.py", "logging/__init__.py", "pathlib.py", "shlex.py", "traceback.py"}
    assert not loaded & unused
    assert len(loaded) <= 100, sorted(loaded)


def test_host_local_does_not_load_ctypes(bin_directory: Path, tmp_path: Path) -> None:
    loaded = executed_by(bin_directory / "host-local", "ADD", with_ipam("host-local", tmp_path), "/nowhere")
    assert "pycni_plugins/host_local/store.py" in loaded
    assert not loaded & {"ctypes/__init__.py", "hashlib.py", "pycni/kernel/netlink/rtnetlink.py"}


def test_status_of_loopback_never_loads_pyroute2(bin_directory: Path) -> None:
    assert "pyroute2" not in packages(modules_of(bin_directory / "loopback", "STATUS", CONFIG | {"ipam": {}}))


def test_no_plugin_loads_command_line_or_test_packages(bin_directory: Path, tmp_path: Path) -> None:
    for plugin in registry.names():
        # STATUS of these plugins fails without their daemon, or if the kernel lacks their link type.
        command = "DEL" if plugin in ("dhcp", "dummy", "flannel", "ipvlan", "vlan", "vrf") else "STATUS"
        modules = modules_of(bin_directory / plugin, command, with_ipam("static", tmp_path))
        assert not packages(modules) & {"click", "rich", "pytest"}


def test_firewall_does_not_load_dbus_code_without_a_system_bus(bin_directory: Path) -> None:
    if Path("/run/dbus/system_bus_socket").exists():
        pytest.skip("there is a system bus on this machine")
    assert "jeepney" not in packages(modules_of(bin_directory / "firewall", "STATUS", CONFIG | {"ipam": {}}))


def test_nothing_is_written_into_the_plugin_directory(bin_directory: Path) -> None:
    """CRI-O asks every plugin for its versions again after any write there."""
    modules_of(bin_directory / "static", "STATUS", CONFIG)
    assert sorted(path.name for path in bin_directory.iterdir()) == registry.names()
