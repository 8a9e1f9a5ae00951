"""pycni add, check and del: cnitool's environment variables, and options."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pycni.cli import netns
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from tests.cli.conftest import Workspace

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "plugins": [{"type": "p1", "capabilities": {"portMappings": True, "mac": True}}, {"type": "p2"}],
}
RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "br0", "mac": "aa:bb:cc:00:00:01"}, {"name": "eth0", "sandbox": "/run/netns/blue"}],
    "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}


def with_cache(workspace: "Workspace", *options: str) -> tuple[str, ...]:
    return (*options, "--cache-dir", str(workspace.cache))


def test_add_check_and_del_of_one_attachment(workspace: "Workspace") -> None:
    workspace.write("10.conflist", NETWORK)
    added = workspace.pycni("add", *with_cache(workspace, "net1", "/run/netns/x", "--container-id", "c1"))
    assert (added.status, added.err) == (0, "")
    assert json.loads(added.out) == {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}
    assert not added.out.endswith("\n")
    assert [call["command"] for call in workspace.calls()] == ["ADD", "ADD"]
    for verb, name in (("check", "CHECK"), ("del", "DEL")):
        assert workspace.pycni(verb, *with_cache(workspace, "net1", "/run/netns/x", "--container-id", "c1")) == (
            0,
            "",
            "",
        )
        calls = workspace.calls()
        assert [call["command"] for call in calls] == [name, name]
        assert all("prevResult" in call["stdin"] for call in calls)


def test_options_extend_and_override_the_environment_variables(
    workspace: "Workspace", monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.write("10.conflist", NETWORK)
    monkeypatch.setenv("CNI_ARGS", "A=b")
    monkeypatch.setenv("CAP_ARGS", '{"mac": "aa", "portMappings": []}')
    options = ["--arg", "K=V", "--port", "8080:80", "--port", "127.0.0.1:53:53/UDP", "--cap", 'mac="bb"', "-i", "net7"]
    assert workspace.pycni("add", *with_cache(workspace, "net1", "/x", *options)).status == 0
    first = workspace.calls()[0]
    assert (first["env"]["CNI_ARGS"], first["env"]["CNI_IFNAME"]) == ("A=b;K=V", "net7")
    assert json.loads(first["stdin"])["runtimeConfig"] == {
        "mac": "bb",
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
        ],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "80"], "invalid --port"),
        (["--port", "80:70000"], "a port must be between 1 and 65535"),
        (["--port", "1.2.3:80:80"], "invalid IP address"),
        (["--arg", "K"], "invalid CNI_ARGS pair"),
        (["--arg", "K=V;L=W"], "invalid CNI_ARGS pair"),
        (["--cap", "mac=aa"], "--cap mac is not valid JSON"),
        (["--timeout", "0"], "0"),
        (["--container-id", "../x"], "invalid characters in containerID"),
    ],
)
def test_invalid_option_is_refused_before_any_call(workspace: "Workspace", options: list[str], message: str) -> None:
    workspace.write("10.conflist", NETWORK)
    done = workspace.pycni("add", *with_cache(workspace, "net1", "/x", *options))
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert workspace.calls() == []


def test_ipv6_host_address_is_written_in_brackets(workspace: "Workspace") -> None:
    workspace.write("10.conflist", NETWORK)
    assert workspace.pycni("add", *with_cache(workspace, "net1", "/x", "--port", "[::1]:8080:80/sctp")).status == 0
    (mapping,) = json.loads(workspace.calls()[0]["stdin"])["runtimeConfig"]["portMappings"]
    assert mapping == {"hostPort": 8080, "containerPort": 80, "protocol": "sctp", "hostIP": "::1"}


def test_error_of_add_names_the_plugin_and_rollback_errors(workspace: "Workspace") -> None:
    failure = {"stdout": {"code": 107, "msg": "failure", "details": "why"}, "exit": 1}
    workspace.write("10.conflist", {**NETWORK, "plugins": [{"type": "p1", "rec": {"ADD": failure, "DEL": failure}}]})
    done = workspace.pycni("add", *with_cache(workspace, "net1", "/x"))
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines() == [
        'Error: plugin type="p1" failed (add): failure; why',
        'during rollback: plugin type="p1" failed (delete): failure; why',
    ]
    workspace.calls()
    workspace.pycni("add", *with_cache(workspace, "net1", "/x", "--no-undo"))
    assert [call["command"] for call in workspace.calls()] == ["ADD"]


def test_namespace_names_are_resolved_as_by_ip_netns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(netns, "DIRECTORY", tmp_path / "netns")
    (tmp_path / "netns").mkdir()
    assert netns.resolve("blue") == tmp_path / "netns" / "blue"  # even if it does not exist, for DEL
    (tmp_path / "blue").touch()
    assert netns.resolve("blue") == tmp_path / "blue"
    (tmp_path / "netns" / "blue").touch()
    assert netns.resolve("blue") == tmp_path / "netns" / "blue"
    assert netns.resolve("./blue") == tmp_path / "blue"
    assert netns.resolve("a/../b//c") == tmp_path / "b" / "c"
    with pytest.raises(CniError, match='network namespace "red" does not exist'):
        netns.ensure("red", create=False)
    with pytest.raises(CniError, match="NETNS is empty"):
        netns.resolve("")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, or `unshare -Urnm`")


@needs_root
def test_create_netns_creates_the_namespace(workspace: "Workspace") -> None:
    """In a mount namespace with its own /run."""
    workspace.write("10.conflist", NETWORK)
    pycni = f"{sys.executable} -m pycni add net1 blue --create-netns --cache-dir {workspace.cache}"
    script = (
        f"mount -t tmpfs none /run && {pycni} >/dev/null && {pycni} >/dev/null && ip netns list && ip -n blue -o link"
    )
    command = ["unshare", "-nm", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, link = done.stdout.splitlines()
    assert names == "blue"
    assert "lo" in link
    assert {call["env"]["CNI_NETNS"] for call in workspace.calls()} == {"/run/netns/blue"}


def terminal_output(*arguments: str) -> str:
    """Run the command on a terminal of 200 columns; return stdout and stderr together."""
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "pycni", *arguments], stdin=follower, stdout=follower, stderr=follower, env=env
    ) as process:
        os.close(follower)
        output = b""
        while chunk := _read(leader):
            output += chunk
        process.wait()
    os.close(leader)
    return output.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end of the terminal is closed
        return b""


def test_result_is_shown_as_a_tree_on_a_terminal(workspace: "Workspace") -> None:
    plugin = {"type": "p1", "rec": {"ADD": {"stdout": RESULT | {"ntp": ["10.1.0.9"]}}}}
    workspace.write("10.conflist", {**NETWORK, "plugins": [plugin, {"type": "p2"}]})
    output = terminal_output("add", *with_cache(workspace, "net1", "/run/netns/x", "--container-id", "c1"))
    assert "net1  p1 → p2" in output
    for line in (
        *("br0  aa:bb:cc:00:00:01", "10.1.0.2/24  gateway 10.1.0.1", "0.0.0.0/0 via 10.1.0.1"),
        *("dns  10.1.0.1", "ntp  10.1.0.9"),
    ):
        assert line in output
    assert "eth0 of /run/netns/x is detached from net1" in terminal_output(
        "del", *with_cache(workspace, "net1", "/run/netns/x", "--container-id", "c1")
    )


def test_error_is_shown_with_code_cause_and_remedy_on_a_terminal(workspace: "Workspace") -> None:
    error = {"stdout": {"code": 107, "msg": "no such bridge", "details": "br7 is gone; make it first"}, "exit": 1}
    workspace.write("10.conflist", {**NETWORK, "plugins": [{"type": "p1", "rec": {"ADD": error}}]})
    output = terminal_output("add", *with_cache(workspace, "net1", "/x"))
    lines = [line.strip() for line in output.splitlines()]
    assert '✗ plugin type="p1" failed (add): no such bridge  (code 107)' in lines
    assert lines[lines.index("br7 is gone") + 1] == "make it first"


def test_vv_logs_every_change_of_the_plugins(tmp_path: Path, bin_directory: Path) -> None:
    conf = tmp_path / "net.d"
    conf.mkdir()
    (conf / "10.conf").write_text('{"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "bridge": "br7"}')
    pycni = f"{sys.executable} -P -m pycni -vv add net1 /proc/self/ns/net"
    command = f"{pycni} --path {bin_directory} --conf-dir {conf} --cache-dir {tmp_path / 'cache'}"
    env = {**os.environ, "CNI_NETNS_OVERRIDE": "1"}
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", command], capture_output=True, text=True, check=False, env=env
    )
    assert "create bridge br7" in done.stderr
    assert "create veth" in done.stderr


def test_help_of_dhcp_daemon_has_a_line_per_flag(workspace: "Workspace") -> None:
    done = workspace.pycni("dhcp-daemon", "--help")
    assert "\\b" not in done.out
    assert "\n    -broadcast           ask servers to broadcast their replies\n" in done.out
