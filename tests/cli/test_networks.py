"""pycni gc, status, version, list and validate, and the command line as a whole."""

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pycni.cli import COMMANDS

if TYPE_CHECKING:
    from tests.cli.conftest import Workspace

NETWORK = {"cniVersion": "1.1.0", "name": "net1", "plugins": [{"type": "p1"}, {"type": "p2"}]}


def test_gc_and_status_need_no_namespace(workspace: "Workspace") -> None:
    workspace.write("10.conflist", NETWORK)
    cache = ("--cache-dir", str(workspace.cache))
    workspace.pycni("add", "net1", "/x", *cache)
    workspace.calls()
    assert workspace.pycni("gc", "net1", *cache) == (0, "", "")
    assert [call["command"] for call in workspace.calls()] == ["DEL", "DEL", "GC", "GC"]
    assert workspace.pycni("status", "net1", "/x", *cache) == (0, "", "")
    assert [call["command"] for call in workspace.calls()] == ["STATUS", "STATUS"]


def test_version_shows_the_versions_that_plugins_support(
    workspace: "Workspace", monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write("10.conflist", NETWORK)
    done = workspace.pycni("version", "net1")
    assert json.loads(done.out)["plugins"]["p1"][-1] == "1.1.0"
    monkeypatch.setenv("REC_VERSIONS", "0.4.0")
    done = workspace.pycni("version", "net1")
    assert (done.status, done.out) == (1, "")
    assert 'plugin p1 does not support config version "1.1.0"' in done.err
    assert 'plugin p2 does not support config version "1.1.0"' in done.err


def test_list_shows_networks_executables_and_attachments(workspace: "Workspace") -> None:
    plugins = [{"type": "p1", "ipam": {"type": "p2"}}, {"type": "loopback"}, {"type": "missing"}]
    workspace.write("10.conflist", {**NETWORK, "plugins": plugins})
    workspace.write("20.conflist", NETWORK | {"name": "net2"})
    workspace.write("30.conf", "{bad")
    workspace.pycni("add", "net2", "/x", "--container-id", "c1", "--cache-dir", str(workspace.cache))
    done = workspace.pycni("list", "--cache-dir", str(workspace.cache))
    assert done.status == 0
    first, second, third = json.loads(done.out)
    p1, loopback, missing = first["plugins"]
    ipam = {"type": "p2", "executable": str(workspace.bin / "p2")}
    assert p1 == {"type": "p1", "executable": str(workspace.bin / "p1"), "ipam": ipam}
    assert loopback["executable"] == "(in process)"
    assert missing["executable"].startswith('missing: failed to find plugin "missing"')
    assert second["attachments"] == [{"containerID": "c1", "ifname": "eth0", "netns": "/x"}]
    assert third["error"].startswith("error parsing configuration")


@pytest.mark.parametrize(
    ("name", "document", "problems"),
    [
        ("a.conflist", NETWORK, []),
        ("a.conflist", "{bad", ["not valid JSON"]),
        ("a.conflist", {"name": "n"}, ["no plugin configs found"]),
        (
            "a.conflist",
            {"plugins": [{}], "disableGC": 1},
            ["no name", "disableGC: invalid value", "plugins[0]: missing"],
        ),
        (
            "a.conflist",
            NETWORK | {"name": "a/b", "cniVersion": "1.2.3"},
            [
                "name: invalid characters",
                'cniVersion: unknown version "1.2.3"',
                "plugins[0].type: p1 supports cniVersion 0.1.0",
            ],
        ),
        ("a.conflist", NETWORK | {"plugins": [{"type": "missing"}]}, ["plugins[0].type: failed to find plugin"]),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "p1", "ipam": {"type": "missing"}}]},
            ["plugins[0].ipam.type: failed to find plugin"],
        ),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "p1", "dns": {"search": 1}, "capabilities": {"x": "yes"}}]},
            ["plugins[0].capabilities.x: must be true or false", "plugins[0]: dns.search must be a list of strings"],
        ),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "p1"}, {"type": "bridge", "mtu": "big", "vlanTrunk": [{"id": 5000}]}]},
            ["plugins[1].mtu: ", "plugins[1].vlanTrunk[0].id: "],
        ),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "bridge", "hairpinMode": True, "promiscMode": True}]},
            ["plugins[0]: "],
        ),
        (
            "a.conflist",
            NETWORK
            | {
                "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/33"}]]}}]
            },
            ["plugins[0].ipam.ranges[0][0].subnet: invalid CIDR address: 10.0.0.0/33"],
        ),
        (
            "a.conflist",
            NETWORK
            | {
                "plugins": [
                    {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24", "rangeEnd": "x"}}
                ]
            },
            ["plugins[0].ipam: invalid IP address: x (rangeEnd)"],
        ),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]},
            ["plugins[0].ipam: "],
        ),
        (
            "a.conflist",
            NETWORK
            | {"plugins": [{"type": "bridge", "ipam": {"type": "static", "addresses": [{"address": "10.0.0.1"}]}}]},
            ["plugins[0].ipam.addresses[0]: invalid CIDR address: 10.0.0.1"],
        ),
        ("a.conf", NETWORK, ["this is a configuration list: rename it to a.conflist"]),
        ("a.json", {"name": "n", "cniVersion": "0.4.0", "type": "bridge", "mtu": -1}, ["mtu: "]),
    ],
)
def test_validate_names_the_place_of_each_problem(
    workspace: "Workspace", name: str, document: object, problems: list[str]
) -> None:
    file = workspace.write(name, document)
    done = workspace.pycni("validate", str(file))
    assert done.status == (1 if problems else 0)
    lines = done.out.splitlines()
    for problem in problems:
        assert any(line.startswith(f"{file}: {problem}") for line in lines), (problem, lines)
    assert len({line.partition(": ")[2].partition(": ")[0] for line in lines}) >= len(problems)


def test_validate_reports_duplicate_network_names_and_checks_plugin_folders(workspace: "Workspace") -> None:
    first, second = workspace.write("10.conflist", NETWORK), workspace.write("20.conflist", NETWORK)
    folder = workspace.write("net1/10.conf", {"type": "p2"})
    done = workspace.pycni("validate")
    duplicate = f'{second}: name: duplicate network name "net1": runtimes use {first.name}\n'
    assert (done.status, done.out) == (1, duplicate)
    folder.write_text('{"type": "missing"}')
    assert "plugin missing of folder net1.type: failed to find" in workspace.pycni("validate", str(first)).out


def test_validate_names_an_installed_runtime_that_is_too_old_for_the_version(workspace: "Workspace") -> None:
    file = workspace.write("10.conflist", NETWORK)
    workspace.install_runtime("containerd", "1.6.20~ds1")
    done = workspace.pycni("validate")
    assert done.status == 1
    assert f"{file}: cniVersion: containerd 1.6.20 supports CNI 1.0.0 at most, not 1.1.0" in done.out
    workspace.write("10.conflist", NETWORK | {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]})
    assert workspace.pycni("validate").status == 0


def test_every_command_has_a_help_text(workspace: "Workspace") -> None:
    overview = workspace.pycni("--help")
    assert (overview.status, overview.err) == (0, "")
    assert workspace.pycni().out == overview.out
    for name in COMMANDS:
        done = workspace.pycni(name, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"Usage: pycni {name}")
        assert name in overview.out


@pytest.mark.parametrize("arguments", [["invalid"], ["add", "net1"], ["add", "--invalid"], ["gc"]])
def test_invalid_command_line_fails_with_usage(workspace: "Workspace", arguments: list[str]) -> None:
    done = workspace.pycni(*arguments)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert "Usage: pycni" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["add", "--help"], ["status", "net1"]])
def test_large_modules_are_not_imported_for_help_and_status(workspace: "Workspace", arguments: list[str]) -> None:
    workspace.write("10.conflist", NETWORK)
    probe = (
        "import sys, atexit; from pycni.cli import main\n"
        "heavy = {'pydantic', 'pyroute2', 'rich', 'asyncio'}\n"
        "atexit.register(lambda: sys.stderr.write(f'heavy: {sorted(heavy & set(sys.modules))}'))\n"
        f"main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "heavy: []"
