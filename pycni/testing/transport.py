"""How PluginRunner calls plugins: in this process, or through launcher and resident server."""

import os
import socket
import subprocess  # noqa: TID251 - the launcher is a process
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pycni.server
from pycni.sdk import registry
from pycni.sdk.dispatch import Response, handle_call
from pycni.sdk.invoke import invoke
from pycni.server.server import Server

LAUNCHER = Path(pycni.server.__file__).with_name("launcher")
_WORKERS, _BACKLOG = 16, 1024  # as many as `pycni serve` has in all its processes
_DRAIN_TIMEOUT = 30.0  # seconds for running calls to end
_server: "_InProcessServer | None" = None


def call(plugin: str, env: Mapping[str, str], stdin: bytes) -> Response:
    """Call a registered plugin: in this process, or through the server inside `through_server`."""
    if _server is not None:
        return _server.call(plugin, env, stdin)
    return handle_call(plugin, registry.load(plugin), env, stdin, invoke)


@contextmanager
def through_server() -> Iterator[None]:
    """Send calls through the launcher, which runtimes start, and a server in this process, until the block ends."""
    global _server  # noqa: PLW0603 - one choice for a whole test
    with tempfile.TemporaryDirectory(prefix="pycni-") as directory:
        _server = _InProcessServer(Path(directory))
        try:
            yield
        finally:
            _server.stop()
            _server = None


@contextmanager
def restarting_server() -> Iterator[None]:
    """Stop the server before and after the block; the next call starts it again.

    A new server has the context variables of that call, such as the watcher of the journal.
    """
    if _server is not None:
        _server.stop()
    try:
        yield
    finally:
        if _server is not None:
            _server.stop()


class _InProcessServer:
    """A server in this process. The first call starts it, so that its own network namespace is the test's host."""

    def __init__(self, directory: Path) -> None:
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._directory = directory
        self._starting = threading.Lock()

    def call(self, plugin: str, env: Mapping[str, str], stdin: bytes) -> Response:
        with self._starting:
            if self._server is None:
                self._start()
        # There are no one-shot scripts, so the launcher cannot bypass the server.
        settings = {"PYCNI_SOCKET": str(self._path()), "PYCNI_ONESHOT_DIR": "/nowhere"}
        done = subprocess.run(
            [plugin], executable=LAUNCHER, env={**env, **settings}, input=stdin, capture_output=True, check=False
        )
        return Response(done.stdout.decode(), done.returncode, done.stderr.decode())

    def _start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path()))
        self._listener.listen(_BACKLOG)
        plugins = {name: registry.load(name) for name in registry.names()}
        self._server = Server(self._listener, plugins, _WORKERS)
        self._server.start()

    def _path(self) -> Path:
        return self._directory / f"{os.getpid()}.sock"  # a forked child starts its own server

    def stop(self) -> None:
        if self._server is None or self._listener is None:
            return
        ended = self._server.drain(_DRAIN_TIMEOUT)
        self._listener.close()
        self._path().unlink()
        self._server = self._listener = None
        assert ended, f"a call through the server did not end within {_DRAIN_TIMEOUT:g} s"
