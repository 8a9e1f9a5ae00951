"""Launchers, servers true and false."""

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
    """A plugin directory with compiled launchers, whose one-shot scripts only say that they were called."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "run" / "pycni.sock"
        self.bin = directory / "bin"
        self.state = directory / "state"
        self.scripts = installation.oneshot_directory(self.bin, self.state)
        installation.install(self.bin, ["static", "bridge", "host-local"], self.state, socket=self.socket)
        self.calls = directory / "oneshot.log"
        self.modules = directory / "modules"  # of its servers' installation, the part that is nobody else's
        self.modules.mkdir()
        self._servers: list[subprocess.Popen[bytes]] = []

    def replace_oneshots(self) -> None:
        """Let the scripts say their names, the verb and what came in on stdin, instead of answering."""
        for script in self.scripts.iterdir():
            script.write_text(f'#!/bin/sh\necho "$CNI_COMMAND" >> {self.calls}\necho {ONESHOT_SAYS}\nwc -c\n')

    def count_oneshots(self) -> None:
        """Let the scripts write down verb and container before they answer."""
        for script in self.scripts.iterdir():
            before, found, after = script.read_text().partition("''':'\n")
            note = f'echo "$CNI_COMMAND $CNI_CONTAINERID" >>{self.calls}\n'
            script.write_text(before + found + note + after)

    def answered(self) -> Counter[str]:
        """How often each call, "ADD c1", was answered, by the server and by scripts."""
        served = re.findall(r"^\S+ (\S+ \S+) in .* ms: ", (self.state / "server.log").read_text(), re.MULTILINE)
        return Counter(served) + Counter(self.calls.read_text().splitlines() if self.calls.exists() else [])

    def run(self, command: str, stdin: bytes = CONFIG, plugin: str = "static", **env: str) -> Any:
        """One call."""
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
        """Kill what a test that has failed has left behind."""
        for process in self._servers:
            process.kill()
            process.wait()

    def upgrade(self) -> None:
        """Change the installation, as pip does."""
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
def false_server(stage: Stage) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    """Lets a function of the test be the server: it is given each connection."""
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
    """A true server."""
    process = stage.serve()
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
