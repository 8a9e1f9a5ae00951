"""Fixtures: installed launchers, a real server and a fake server."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.sdk.stub import Stub
from pycni.testing import wait_for

CONFIG = b'{"cniVersion": "1.1.0", "name": "net", "ipam": {"addresses": [{"address": "10.1.0.2/24"}]}}'
ONESHOT_SAYS = "one-shot"


class Stage:
    """A plugin directory with compiled launchers, and the servers that a test starts for it."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "run" / "pycni.sock"
        self.bin = directory / "bin"
        self.state = directory / "state"
        self.scripts = installation.oneshot_directory(self.bin, self.state)
        installation.install(self.bin, ["static", "bridge", "host-local"], self.state, socket=self.socket)
        self.calls = directory / "oneshot.log"
        self.modules = directory / "modules"  # a directory in the module search path of this test's servers only
        self.modules.mkdir()
        self._servers: list[subprocess.Popen[bytes]] = []

    def replace_oneshots(self) -> None:
        """Replace the one-shot scripts: they log the verb, and print ONESHOT_SAYS and the number of bytes on stdin."""
        for script in self.scripts.iterdir():
            script.write_text(f'#!/bin/sh\necho "$CNI_COMMAND" >> {self.calls}\necho {ONESHOT_SAYS}\nwc -c\n')

    def count_oneshots(self) -> None:
        """Make the one-shot scripts log verb and container ID before they answer."""
        for script in self.scripts.iterdir():
            before, found, after = script.read_text().partition("''':'\n")
            note = f'echo "$CNI_COMMAND $CNI_CONTAINERID" >>{self.calls}\n'
            script.write_text(before + found + note + after)

    def answered(self) -> Counter[str]:
        """Return how often the server and the scripts answered each call. A key is for example "ADD c1"."""
        served = re.findall(r"^\S+ (\S+ \S+) in .* ms: ", (self.state / "server.log").read_text(), re.MULTILINE)
        return Counter(served) + Counter(self.calls.read_text().splitlines() if self.calls.exists() else [])

    def run(self, command: str, stdin: bytes = CONFIG, plugin: str = "static", **env: str) -> Any:
        """Call a plugin through its launcher."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "id",
            "CNI_NETNS": "/nowhere",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            **env,
        }
        return subprocess.run(
            [self.bin / plugin], input=stdin, env=environment, capture_output=True, check=False, timeout=60
        )

    def serve(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start a server and wait until it answers."""
        said = self.state / "server.log"
        with said.open("ab") as log:
            command = [sys.executable, "-m", "pycni", "serve", "--socket", str(self.socket), *options]
            env = {**os.environ, "PYTHONPATH": str(self.modules)}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self._servers.append(process)
        wait_for(lambda: f"serving at {self.socket} as {process.pid}" in said.read_text(), "the server", seconds=60)
        return process

    def end(self) -> None:
        """Kill the servers that a failed test left running."""
        for process in self._servers:
            process.kill()
            process.wait()

    def upgrade(self) -> None:
        """Change the modification time of a package directory, as an upgrade by pip does."""
        os.utime(self.modules)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    if not installation.has_compiled_launcher():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    made = Stage(tmp_path)
    assert Stub.read(str(made.bin / "static")) is not None
    yield made
    made.end()


@pytest.fixture
def fake_server(stage: Stage) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    """Return a function that starts a fake server, which passes each connection to a function of the test."""
    stage.replace_oneshots()
    stage.socket.parent.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(stage.socket))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(behave: Callable[[socket.socket], None]) -> None:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    behave(connection)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


@pytest.fixture
def server(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a real server, and stop it with SIGTERM after the test."""
    process = stage.serve()
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
