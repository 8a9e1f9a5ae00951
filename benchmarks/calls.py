"""Timed calls of plugin executables, and the contenders: Go, pycni with a server, pycni without one."""

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

VERSION = "1.0.0"  # the newest that Debian's Go plugins support


@dataclass(frozen=True)
class Contender:
    """Executables of one directory, with an environment and a host (network namespace) of their own."""

    name: str
    bin: Path
    host: Host
    env: Mapping[str, str] = field(default_factory=dict)


class CallError(Exception):
    """A call failed."""


def call(
    contender: Contender, plugin: str, command: str, config: Mapping[str, Any], netns: str, container_id: str
) -> tuple[float, Any]:
    """Make one call; return the milliseconds from exec to exit and the decoded output. Raises CallError."""
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
        # No pipes and no fork: the overhead of measuring is small and the same for all contenders.
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        executable = str(contender.bin / plugin)
        with contender.host.netns.enter():
            started = time.perf_counter()
            pid = os.posix_spawn(executable, [executable], env, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            elapsed = (time.perf_counter() - started) * 1000
        os.lseek(stdout, 0, os.SEEK_SET)
        printed = os.read(stdout, 1 << 20).decode()
    finally:
        os.close(stdin)
        os.close(stdout)
    # CHECK of Debian's portmap fails because it expects a chain that its ADD does not create. The time counts anyway.
    if status and (contender.name, plugin, command) != ("Go", "portmap", "CHECK"):
        raise CallError(f"{contender.name}: {plugin} {command}: {printed}")
    return elapsed, json.loads(printed) if printed.strip() else None


class Chain:
    """A list of plugins that is called as a runtime calls it."""

    def __init__(self, *plugins: Mapping[str, Any], name: str = "bench") -> None:
        self.plugins = plugins
        self.name = name

    def add(self, contender: Contender, netns: str, container_id: str) -> tuple[float, Any]:
        """Call ADD in order; return the total milliseconds and the last result."""
        total, result = 0.0, None
        for plugin in self.plugins:
            elapsed, result = self._call(contender, plugin, "ADD", result, netns, container_id)
            total += elapsed
        return total, result

    def check(self, contender: Contender, netns: str, container_id: str, result: Any) -> float:
        """Call CHECK in order; return the total milliseconds."""
        calls = [self._call(contender, p, "CHECK", result, netns, container_id) for p in self.plugins]
        return sum(elapsed for elapsed, _ in calls)

    def delete(self, contender: Contender, netns: str, container_id: str, result: Any) -> float:
        """Call DEL in reverse order; return the total milliseconds."""
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
    """Yield the Go plugins, pycni with a server, and pycni without one, each on a host of its own."""
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
def served(host: Host, socket: Path, log: Path, python: str = sys.executable) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the server of an installation, given by its interpreter, on the host within the block."""
    with log.open("ab") as file, host.netns.enter():
        command = [python, "-P", "-m", "pycni", "serve", "--socket", str(socket)]
        env = {**os.environ, "PYTHONPATH": ""}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
    try:
        wait_for(lambda: f"serving at {socket}" in log.read_text(), "the server", seconds=60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
