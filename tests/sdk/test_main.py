"""Tests of plugins as processes: stdout, signals, closed or full descriptors, environment."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pycni.testing import Container, wait_for

NOISY = """
import os, sys
from pycni.sdk import NetConf, Plugin, Result
from pycni.sdk.main import main

class Noisy(Plugin[NetConf]):
    def add(self, cni):
        print("OK")
        os.system("echo from a child")
        os.write(1, b"raw\\n")
        return Result()

    def check(self, cni):
        print("OK")

    def delete(self, cni):
        print("OK")

main("noisy", Noisy)
"""
SLOW = """
import pathlib, sys, threading
from pycni.sdk import NetConf, Plugin, Result
from pycni.sdk.main import main

class Slow(Plugin[NetConf]):
    def add(self, cni):
        made = pathlib.Path(sys.argv[1])
        cni.journal.change("make it", made.touch, made.unlink)
        threading.Event().wait()

    def check(self, cni): ...
    def delete(self, cni): ...

main("slow", Slow)
"""
STDIN = b'{"cniVersion": "1.1.0", "name": "net"}'


def environment(command: str, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": "/nowhere",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
        **more,
    }


def run(argv: list[Any], command: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    options.setdefault("input", STDIN)
    if options["input"] is None:
        del options["input"]
    return subprocess.run(argv, env=environment(command), stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.parametrize(("command", "answer"), [("ADD", {"cniVersion": "1.1.0"}), ("CHECK", None), ("DEL", None)])
def test_output_printed_by_a_plugin_does_not_reach_stdout(command: str, answer: object) -> None:
    """A stray "OK" on stdout makes every runtime fail (Calico issue 13295)."""
    done = run([sys.executable, "-c", NOISY], command, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert (json.loads(done.stdout) if done.stdout else None) == answer
    assert b"OK" in done.stderr


def test_signal_rolls_back_an_unfinished_add(tmp_path: Path) -> None:
    made = tmp_path / "made"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, made],
        env=environment("ADD"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(STDIN)
    process.stdin.close()
    process.stdin = None
    wait_for(made.exists, "the plugin to create its file", seconds=20)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=20)
    assert not made.exists()
    assert process.returncode == 1
    assert json.loads(stdout)["code"] == 11


def test_closed_stdin_is_treated_as_empty(bin_directory: Path) -> None:
    done = run(["sh", "-c", 'exec "$0" <&-', bin_directory / "static"], "ADD", stdout=subprocess.PIPE, input=None)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 6)


@pytest.mark.parametrize("command", ["VERSION", "ADD"])
def test_full_stdout_is_exit_status_1_and_an_error_on_stderr(bin_directory: Path, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run([bin_directory / "static"], command, stdout=full)
    assert done.returncode == 1
    assert re.search(b"no space left on device|i/o error", done.stderr.lower())


def test_environment_of_a_daemon_is_sufficient(bin_directory: Path) -> None:
    """Plugins need neither PATH nor LANG nor HOME, and ignore LD_LIBRARY_PATH and the variables of Python."""
    ignored = {"LD_LIBRARY_PATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}
    env = {key: value for key, value in environment("VERSION").items() if key != "PATH"} | ignored
    done = subprocess.run(
        [bin_directory / "bridge"], env=env, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["supportedVersions"]


def test_executable_attaches_a_container(container: Container, bin_directory: Path, tmp_path: Path) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "subnet": "10.1.0.0/24"}
    config = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam}
    env = environment("ADD", CNI_NETNS=container.path, CNI_PATH=str(bin_directory))
    stdin = json.dumps(config).encode()
    done = subprocess.run([bin_directory / "bridge"], input=stdin, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ips"] == [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2}]
    assert container.pings("10.1.0.1")
