"""How the miniature runtime calls plugins: in this process, or through a resident server in it, by the launcher."""

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
_WORKERS, _QUEUE = 16, 1024  # as those of `pycni serve` together
_DRAIN_TIMEOUT = 30.0  # seconds for calls that are being answered
_server: "_InProcessServer | None" = None


def call(plugin: str, env: Mapping[str, str], stdin: bytes) -> Response:
    """One call of a registered plugin, by the way that is chosen: in this process unless `served`."""
    if _server is not None:
        return _server.call(plugin, env, stdin)
    return handle_call(plugin, registry.load(plugin), env, stdin, invoke)


@contextmanager
def through_server() -> Iterator[None]:
    """Let calls go through a server, by the launcher that runtimes start, for as long as this lasts."""
    global _server  # noqa: PLW0603 - it is chosen for a whole test, not for each of its runtimes
    with tempfile.TemporaryDirectory(prefix="pycni-") as directory:
        _server = _InProcessServer(Path(directory))
        try:
            yield
        finally:
            _server.stop()
            _server = None


@contextmanager
def restarting_server() -> Iterator[None]:
    """Have the server start anew with the next call, in the context of that, and once more afterwards."""
    if _server is not None:
        _server.stop()
    try:
        yield
    finally:
        if _server is not None:
            _server.stop()


class _InProcessServer:
    """A server in this process, which begins with the first call: so its own namespace is the test's host."""

    def __init__(self, directory: Path) -> None:
        self._server: Server | None = None
        self._listener: socket.socket | None = None
        self._directory = directory
        self._starting = threading.Lock()

    def call(self, plugin: str, env: Mapping[str, str], stdin: bytes) -> Response:
        with self._starting:
            if self._server is None:
                self._start()
        # Without scripts there is no way around the server.
        places = {"PYCNI_SOCKET": str(self._path()), "PYCNI_ONESHOT_DIR": "/nowhere"}
        done = subprocess.run(
            [plugin], executable=LAUNCHER, env={**env, **places}, input=stdin, capture_output=True, check=False
        )
        return Response(done.stdout.decode(), done.returncode, done.stderr.decode())

    def _start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path()))
        self._listener.listen(_QUEUE)
        plugins = {name: registry.load(name) for name in registry.names()}
        self._server = Server(self._listener, plugins, _WORKERS)
        self._server.start()

    def _path(self) -> Path:
        return self._directory / f"{os.getpid()}.sock"  # a forked child has a server of its own

    def stop(self) -> None:
        if self._server is None or self._listener is None:
            return
        ended = self._server.drain(_DRAIN_TIMEOUT)
        self._listener.close()
        self._path().unlink()
        self._server = self._listener = None
        assert ended, "a call through the server has not come to its end"
