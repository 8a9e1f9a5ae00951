"""pycni gc, status, version, list and validate, and the command as a whole."""

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pycni.cli import COMMANDS

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

NETWORK = {"cniVersion": "1.1.0", "name": "net1", "plugins": [{"type": "p1"}, {"type": "p2"}]}


def test_gc_and_status_need_no_namespace(desk: "Desk") -> None:
    desk.write("10.conflist", NETWORK)
    cache = ("--cache-dir", str(desk.cache))
    desk.pycni("add", "net1", "/x", *cache)
    desk.calls()
    assert desk.pycni("gc", "net1", *cache) == (0, "", "")
    assert [call["command"] for call in desk.calls()] == ["DEL", "DEL", "GC", "GC"]
    assert desk.pycni("status", "net1", "/x", *cache) == (0, "", "")
    assert [call["command"] for call in desk.calls()] == ["STATUS", "STATUS"]


def test_version_shows_what_the_plugins_speak(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write("10.conflist", NETWORK)
    done = desk.pycni("version", "net1")
    assert json.loads(done.out)["plugins"]["p1"][-1] == "1.1.0"
    monkeypatch.setenv("REC_VERSIONS", "0.4.0")
    done = desk.pycni("version", "net1")
    assert (done.status, done.out) == (1, "")
    assert 'plugin p1 does not support config version "1.1.0"' in done.err
    assert 'plugin p2 does not support config version "1.1.0"' in done.err


def test_list_shows_networks_executables_and_attachments(desk: "Desk") -> None:
    plugins = [{"type": "p1", "ipam": {"type": "p2"}}, {"type": "loopback"}, {"type": "nobody"}]
    desk.write("10.conflist", {**NETWORK, "plugins": plugins})
    desk.write("20.conflist", NETWORK | {"name": "net2"})
    desk.write("30.conf", "{bad")
    desk.pycni("add", "net2", "/x", "--container-id", "c1", "--cache-dir", str(desk.cache))
    done = desk.pycni("list", "--cache-dir", str(desk.cache))
    assert done.status == 0
    first, second, third = json.loads(done.out)
    p1, loopback, nobody = first["plugins"]
    ipam = {"type": "p2", "executable": str(desk.bin / "p2")}
    assert p1 == {"type": "p1", "executable": str(desk.bin / "p1"), "ipam": ipam}
    assert loopback["executable"] == "(in process)"
    assert nobody["executable"].startswith('missing: failed to find plugin "nobody"')
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
        ("a.conflist", NETWORK | {"plugins": [{"type": "nobody"}]}, ["plugins[0].type: failed to find plugin"]),
        (
            "a.conflist",
            NETWORK | {"plugins": [{"type": "p1", "ipam": {"type": "nobody"}}]},
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
def test_validate_says_where_in_the_document_it_is_wrong(
    desk: "Desk", name: str, document: object, problems: list[str]
) -> None:
    file = desk.write(name, document)
    done = desk.pycni("validate", str(file))
    assert done.status == (1 if problems else 0)
    lines = done.out.splitlines()
    for problem in problems:
        assert any(line.startswith(f"{file}: {problem}") for line in lines), (problem, lines)
    assert len({line.partition(": ")[2].partition(": ")[0] for line in lines}) >= len(problems)


def test_validate_finds_a_network_that_is_hidden_by_another(desk: "Desk") -> None:
    first, second = desk.write("10.conflist", NETWORK), desk.write("20.conflist", NETWORK)
    folder = desk.write("net1/10.conf", {"type": "p2"})
    done = desk.pycni("validate")
    hidden = f'{second}: name: duplicate network name "net1": runtimes use {first.name}\n'
    assert (done.status, done.out) == (1, hidden)
    folder.write_text('{"type": "nobody"}')
    assert "plugin nobody of folder net1.type: failed to find" in desk.pycni("validate", str(first)).out


def test_validate_names_an_installed_runtime_that_is_too_old_for_the_version(desk: "Desk") -> None:
    file = desk.write("10.conflist", NETWORK)
    desk.install_runtime("containerd", "1.6.20~ds1")
    done = desk.pycni("validate")
    assert done.status == 1
    assert f"{file}: cniVersion: containerd 1.6.20 supports CNI 1.0.0 at most, not 1.1.0" in done.out
    desk.write("10.conflist", NETWORK | {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]})
    assert desk.pycni("validate").status == 0


def test_every_command_has_a_help(desk: "Desk") -> None:
    overview = desk.pycni("--help")
    assert (overview.status, overview.err) == (0, "")
    assert desk.pycni().out == overview.out
    for name in COMMANDS:
        done = desk.pycni(name, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"Usage: pycni {name}")
        assert name in overview.out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["add", "net1"], ["add", "--frobnicate"], ["gc"]])
def test_a_command_that_is_none_fails_with_a_usage(desk: "Desk", arguments: list[str]) -> None:
    done = desk.pycni(*arguments)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert "Usage: pycni" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["add", "--help"], ["status", "net1"]])
def test_nothing_heavy_is_loaded_before_it_is_needed(desk: "Desk", arguments: list[str]) -> None:
    desk.write("10.conflist", NETWORK)
    probe = (
        "import sys, atexit; from pycni.cli import main\n"
        "heavy = {'pydantic', 'pyroute2', 'rich', 'asyncio'}\n"
        "atexit.register(lambda: sys.stderr.write(f'heavy: {sorted(heavy & set(sys.modules))}'))\n"
        f"main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "heavy: []"
