"""Calls of executables, timed from their start to their end, and the contenders that answer them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycni.cli import installation
from pycni.testing import Host, wait_for

VERSION = "1.0.0"  # the newest that Debian's Go plugins know


@dataclass(frozen=True)
class Contender:
    """Who answers: the executables of a directory, in an environment, on a host of their own."""

    name: str
    bin: Path
    host: Host
    env: Mapping[str, str] = field(default_factory=dict)


class CallError(Exception):
    """A call that ended otherwise than it should."""


def call(
    contender: Contender, plugin: str, command: str, config: Mapping[str, Any], netns: str, container_id: str
) -> tuple[float, Any]:
    """One call: milliseconds from exec to exit, and what it printed."""
    env = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": "lo" if plugin == "loopback" else "eth0",
        "CNI_PATH": str(contender.bin),
        **contender.env,
    }
    stdin, stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
    try:
        os.write(stdin, json.dumps(config).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        # Neither pipes nor fork: what the measuring costs is the same for all, and small.
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        executable = str(contender.bin / plugin)
        with contender.host.netns.entered():
            started = time.perf_counter()
            pid = os.posix_spawn(executable, [executable], env, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            elapsed = (time.perf_counter() - started) * 1000
        os.lseek(stdout, 0, os.SEEK_SET)
        printed = os.read(stdout, 1 << 20).decode()
    finally:
        os.close(stdin)
        os.close(stdout)
    # Debian's portmap fails in its CHECK: a chain that it did not make is missing. Its time counts as well.
    if status and (contender.name, plugin, command) != ("Go", "portmap", "CHECK"):
        raise CallError(f"{contender.name}: {plugin} {command}: {printed}")
    return elapsed, json.loads(printed) if printed.strip() else None


class Chain:
    """A list of plugins, called as a runtime calls them."""

    def __init__(self, *plugins: Mapping[str, Any], name: str = "bench") -> None:
        self.plugins = plugins
        self.name = name

    def add(self, contender: Contender, netns: str, container_id: str) -> tuple[float, Any]:
        """ADD of each in turn: milliseconds in all, and the last result."""
        total, result = 0.0, None
        for plugin in self.plugins:
            elapsed, result = self._call(contender, plugin, "ADD", result, netns, container_id)
            total += elapsed
        return total, result

    def check(self, contender: Contender, netns: str, container_id: str, result: Any) -> float:
        """CHECK of each in turn: milliseconds in all."""
        calls = [self._call(contender, p, "CHECK", result, netns, container_id) for p in self.plugins]
        return sum(elapsed for elapsed, _ in calls)

    def delete(self, contender: Contender, netns: str, container_id: str, result: Any) -> float:
        """DEL of each, the last first: milliseconds in all."""
        calls = [self._call(contender, p, "DEL", result, netns, container_id) for p in reversed(self.plugins)]
        return sum(elapsed for elapsed, _ in calls)

    def _call(
        self, contender: Contender, plugin: Mapping[str, Any], command: str, result: Any, netns: str, container_id: str
    ) -> tuple[float, Any]:
        config = {"cniVersion": VERSION, "name": self.name, **plugin}
        if result is not None:
            config["prevResult"] = result
        return call(contender, plugin["type"], command, config, netns, container_id)


@contextmanager
def contenders(place: Path, go_plugins: Path) -> Iterator[Sequence[Contender]]:
    """Go's plugins, ours with a server, and ours without one; what one leaves on its host slows nobody else down."""
    binaries, socket = place / "bin", place / "run" / "pycni.sock"
    installation.install(binaries, state=place / "state", socket=socket)
    go, ours, alone = (Host(place / name) for name in ("go", "pycni", "one-shot"))
    with served(ours, socket, place / "server.log"):
        yield (
            Contender("Go", go_plugins, go),
            Contender("pycni", binaries, ours),
            Contender("one-shot", binaries, alone, {"PYCNI_SOCKET": "/nowhere"}),
        )
    for host in (go, ours, alone):
        host.close()


@contextmanager
def served(host: Host, socket: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server on the host, for as long as the block lasts."""
    with log.open("ab") as file, host.netns.entered():
        command = [sys.executable, "-m", "pycni", "serve", "--socket", str(socket)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_for(lambda: f"serving at {socket}" in log.read_text(), "the server", seconds=60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
