"""The process of the resident server: socket, signals, worker processes, restart after an upgrade, shutdown."""

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pycni.protocol.errors import CniError
from pycni.sdk import registry, unix_socket
from pycni.sdk.config import build_models
from pycni.sdk.plugin import Plugin
from pycni.server.server import Server, redirect_output
from pycni.server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# Inode of the socket, for the process after a restart to remove it at its end; unset for a socket of systemd.
_SOCKET_INODE = "PYCNI_SOCKET_INODE"
_CHECK_INTERVAL = 2.0  # seconds between two checks whether the installation has changed
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DRAIN_TIMEOUT = 60.0  # seconds for calls in progress
_M_ARENA_MAX = -8  # malloc.h
_GC_THRESHOLD = 2_000  # new objects until the garbage collector runs


def serve(path: Path, workers: int, processes: int) -> None:
    """Serve at the socket `path` until SIGTERM or SIGINT; restart in place when the installation has changed.

    This process is the first of the `processes`, and the one with the background services of plugins. Each process has
    `workers` threads.
    """
    redirect_output()
    installation = Installation()
    plugins = load_plugins()
    with _listening(path) as listener, _stop_signals() as stop_fd, ExitStack() as services:
        _tune_interpreter()
        children = [
            WorkerProcess(lambda channel: _run_worker_process(channel, listener, plugins, workers))
            for _ in range(processes - 1)
        ]
        _start_background_services(plugins, services, path.absolute().parent.parent)
        server = Server(listener, plugins, workers)
        for child in children:
            child.wait_until_ready()
        server.start()
        _notify("READY=1")
        log.info("serving at %s as %d: %s", path, os.getpid(), ", ".join(plugins))
        while stop_fd not in (events := _wait(stop_fd, children)):
            for child in [one for one in children if one in events]:
                log.warning("worker process %d has ended", child.pid)
                child.join(0)
                children.remove(child)
            if installation.has_changed():
                log.info("the installation has changed: restarting")
                _notify("RELOADING=1")
                _drain(server, children)
                services.close()
                _restart(listener, stop_fd)
                break  # a stop signal came first
        _notify("STOPPING=1")
        _drain(server, children)


def _wait(stop_fd: int, children: list[WorkerProcess]) -> Collection[int | WorkerProcess]:
    """Wait for a stop signal or the end of a worker process. Return what happened: nothing after a time-out."""
    watched: list[int | WorkerProcess] = [stop_fd, *children]
    return select.select(watched, [], [], _CHECK_INTERVAL)[0]


def _run_worker_process(
    channel: socket.socket, listener: socket.socket, plugins: Mapping[str, type[Plugin[Any]]], workers: int
) -> None:
    """Answer calls in a worker process until a stop signal, or until the main process asks for it or ends."""
    with _stop_signals() as stop_fd:
        channel.recv(1)
        server = Server(listener, plugins, workers)
        channel.send(b"+")
        server.start()
        awaited: list[int | socket.socket] = [stop_fd, channel]
        select.select(awaited, [], [])
        server.drain(_DRAIN_TIMEOUT)


def _drain(server: Server, children: list[WorkerProcess]) -> None:
    """Accept no more calls, and wait for those in progress in all processes."""
    deadline = time.monotonic() + _DRAIN_TIMEOUT
    for child in children:
        child.request_stop()
    ended = [server.drain(_DRAIN_TIMEOUT), *(child.join(deadline) for child in children)]
    children.clear()
    if not all(ended):
        log.warning("calls still in progress after %g s are abandoned", _DRAIN_TIMEOUT)


def load_plugins() -> dict[str, type[Plugin[Any]]]:
    """Return all registered plugins by type, with every module loaded and every model built, so that no call does it.

    Leave out and log a plugin that cannot be loaded: the one-shot process answers its calls with that error.
    """
    plugins = {}
    for name in registry.names():
        try:
            plugins[name] = registry.load(name)
        except (Exception, SystemExit) as error:
            log.error("plugin not served: %s", error, exc_info=not isinstance(error, CniError))
    build_models()
    return plugins


def _tune_interpreter() -> None:
    """Disable what costs time with each call and is of no use in this process."""
    # The objects that exist now are never freed: exempt them from collection. A call leaves few cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    # Without it, malloc() gives each thread a heap, whose free memory other threads cannot use.
    with suppress(AttributeError):  # a C library without mallopt()
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    # Nothing in the log format needs these (see "Optimization" in the documentation of logging).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _start_background_services(plugins: Mapping[str, type[Plugin[Any]]], services: ExitStack, run: Path) -> None:
    """Start the background services of the plugins; log the failure of one and go on.

    Their sockets are below `run`, which is /run or the directory used instead.
    """
    for name, plugin in plugins.items():
        try:
            services.enter_context(plugin.background_service(run))
        except Exception:
            log.exception("cannot start the background service of %s", name)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Listen at the path, or at the socket passed by systemd or by this process before its restart."""
    passed = unix_socket.passed_listener()
    if passed is None:
        with unix_socket.unix_listener(path) as listener:
            os.environ[_SOCKET_INODE] = str(path.stat().st_ino)
            yield listener
        return
    with passed:
        yield passed
    if inode := os.environ.get(_SOCKET_INODE):
        unix_socket.remove_socket(path, int(inode))


def _restart(listener: socket.socket, stop_fd: int) -> None:
    """Replace this process by the new version of the server, which keeps the socket: calls wait in its queue.

    Stop signals stay blocked until the new version handles them. Return if one has come before.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    if select.select([stop_fd], [], [], 0)[0]:
        return
    unix_socket.pass_listener_on(listener)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pycni", *sys.argv[1:]])  # noqa: S606 - there is no shell


@contextmanager
def _stop_signals() -> Iterator[int]:
    """Handle SIGTERM and SIGINT: yield a descriptor that becomes readable with the first."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)  # see _restart
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


class Installation:
    """The directories that Python modules are loaded from, checked for changes by pip."""

    def __init__(self) -> None:
        self._loaded = self._seen = self._fingerprint()

    def has_changed(self) -> bool:
        """Return whether it has changed since the start, and not since the last check: pip may not have finished."""
        before, self._seen = self._seen, self._fingerprint()
        return self._loaded != self._seen == before

    def _fingerprint(self) -> tuple[int, ...]:
        """Return modification times that change when pip installs, upgrades or removes a package."""
        times = []
        for directory in sys.path:
            try:
                times.append(os.stat(directory).st_mtime_ns)
            except OSError:
                continue
        return tuple(times)


def _notify(state: str) -> None:
    """Send the state to systemd (sd_notify(3)), if it started this process and waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())
        except OSError as error:  # systemd has restarted, for example; the server works without it
            log.warning("cannot send %s to systemd at %s: %s", state, address, error)
