"""The process of the resident server: socket, signals, worker processes, restart after an upgrade, shutdown."""

import codecs
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pycni import __version__
from pycni.protocol.errors import CniError
from pycni.sdk import registry, unix_socket
from pycni.sdk.config import build_models
from pycni.sdk.plugin import Plugin
from pycni.server.activity import Activity, Slot
from pycni.server.execution import redirect_output
from pycni.server.fork_server import ForkServer
from pycni.server.on_demand import OnDemand, raised_priority
from pycni.server.server import Server
from pycni.server.signals import STOP_SIGNALS, stop_signals
from pycni.server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# Inode of the socket, for the process after a restart to remove it at its end; unset for a socket of systemd.
_SOCKET_INODE = "PYCNI_SOCKET_INODE"
_CHECK_INTERVAL = 2.0  # seconds between two checks whether the installation has changed
_DRAIN_TIMEOUT = 60.0  # seconds for calls in progress
_M_ARENA_MAX = -8  # malloc.h
_GC_THRESHOLD = 2_000  # new objects until the garbage collector runs


@dataclass(frozen=True)
class Options:
    """The options of `pycni serve`."""

    socket: Path
    workers: int  # threads of each process
    processes: int
    idle_timeout: float | None = None  # seconds without a call after which the server ends
    on_demand_script: Path | None = None  # the script that a launcher has started as an on-demand server


def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; restart in place when the installation has changed.

    With `idle_timeout`, end after that time without a call, unless a background service has something to do. An
    on-demand server also ends when its script or its socket is removed.
    """
    gc.disable()  # nearly all objects that are created now are needed to the end
    redirect_output()
    installation = Installation()
    with raised_priority() if options.on_demand_script else nullcontext():
        plugins = load_plugins()
    on_demand = OnDemand.start(options.socket, options.on_demand_script) if options.on_demand_script else None
    processes = _Processes(options, plugins, on_demand)
    with _listening(options.socket) as listener, stop_signals() as stop_fd, ExitStack() as services:
        _tune_interpreter()
        processes.fork(listener)
        busy: list[Callable[[], bool]] = []
        if on_demand is None or on_demand.has_run_directory:
            busy = _start_background_services(plugins, services, options.socket.absolute().parent.parent)
        processes.start()
        _notify("READY=1")
        log.info("serving at %s as %d: %s", options.socket, os.getpid(), ", ".join(plugins))
        while not processes.wait(stop_fd):
            reason = on_demand.reason_to_end() if on_demand else ""
            if not reason and processes.are_idle and not any(is_busy() for is_busy in busy):
                reason = f"no call for {options.idle_timeout:g} s"
            if reason:
                log.info("ending: %s", reason)
                break
            if installation.has_changed():
                log.info("the installation has changed: restarting")
                _notify("RELOADING=1")
                processes.drain()
                services.close()
                _restart(listener, stop_fd, on_demand.command if on_demand else None)
                break  # a stop signal came first
        _notify("STOPPING=1")
        processes.drain()
    if on_demand:
        on_demand.end()


class _Processes:
    """The processes that answer calls: this one, the main process, and its children."""

    def __init__(self, options: Options, plugins: Mapping[str, type[Plugin[Any]]], on_demand: OnDemand | None) -> None:
        self._options, self._plugins = options, plugins
        self._activity = Activity(options.processes + 1)
        self._children: dict[WorkerProcess, Slot] = {}
        self._server: Server | None = None
        self._can_fork_for_calls = on_demand is not None
        passed_by_systemd = "LISTEN_FDS" in os.environ and _SOCKET_INODE not in os.environ
        self._identity = {
            "pid": os.getpid(),
            "version": __version__,
            "started_by": "systemd" if passed_by_systemd else "a call" if on_demand else "a command",
            "since": time.time(),
            "idle_timeout": options.idle_timeout,
        }

    def fork(self, listener: socket.socket) -> None:
        """Fork the children, while this process has one thread."""
        fork_server = None
        slots = [self._activity.slot(number) for number in range(self._options.processes + 1)]
        if self._can_fork_for_calls:
            fork_server = ForkServer(self._plugins, slots[-1])
            self._children[fork_server] = slots[-1]
        new_server = partial(
            Server, listener, self._plugins, self._options.workers, status=self.status, fork_server=fork_server
        )
        for slot in slots[1:-1]:
            work = partial(_run_worker_process, new_server=partial(new_server, activity=slot))
            self._children[WorkerProcess(work)] = slot
        self._server = new_server(activity=slots[0])

    def start(self) -> None:
        """Start to answer calls in all processes."""
        assert self._server is not None
        for child in self._children:
            child.wait_until_ready()
        self._server.start()

    def wait(self, stop_fd: int) -> bool:
        """Wait for a short time, less if a child ends. Return whether a stop signal has come."""
        watched: list[int | WorkerProcess] = [stop_fd, *self._children]
        events = select.select(watched, [], [], _CHECK_INTERVAL)[0]
        for child in [child for child in self._children if child in events]:
            log.warning("worker process %d has ended", child.pid)
            child.join(0)
            self._children.pop(child).abandon()
        return stop_fd in events

    @property
    def are_idle(self) -> bool:
        """Whether there was no call for the time after which the server ends."""
        return self._options.idle_timeout is not None and self._activity.idle > self._options.idle_timeout

    def status(self) -> dict[str, Any]:
        """Return what `pycni server` shows."""
        activity = self._activity
        return {
            **self._identity,
            "calls": activity.calls,
            "in_progress": activity.in_progress,
            "idle": activity.idle,
        }

    def drain(self) -> None:
        """Accept no more calls, and wait for those in progress in all processes."""
        assert self._server is not None
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        for child in self._children:
            child.request_stop()
        ended = [self._server.drain(_DRAIN_TIMEOUT), *(child.join(deadline) for child in self._children)]
        self._children.clear()
        if not all(ended):
            log.warning("calls still in progress after %g s are abandoned", _DRAIN_TIMEOUT)


def _run_worker_process(channel: socket.socket, *, new_server: Callable[[], Server]) -> None:
    """Answer calls in a worker process until a stop signal, or until the main process asks for it or ends."""
    with stop_signals() as stop_fd:
        channel.recv(1)
        server = new_server()
        channel.send(b"+")
        server.start()
        awaited: list[int | socket.socket] = [stop_fd, channel]
        select.select(awaited, [], [])
        server.drain(_DRAIN_TIMEOUT)


def load_plugins() -> dict[str, type[Plugin[Any]]]:
    """Return all registered plugins by type, with every module loaded and every model built, so that no call does it.

    Leave out and log a plugin that cannot be loaded: the one-shot process answers its calls with that error.
    """
    plugins = {}
    for name, entry in registry.entries().items():
        try:
            plugins[name] = registry.load_entry(entry)
        except (Exception, SystemExit) as error:
            log.error("plugin not served: %s", error, exc_info=not isinstance(error, CniError))
    build_models()
    codecs.lookup("ascii")  # loads its module, which the interpreter itself does not need
    return plugins


def _tune_interpreter() -> None:
    """Disable what costs time with each call and is of no use in this process."""
    # The objects that exist now are never freed: exempt them from collection. A call leaves few cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    gc.enable()
    # Without it, malloc() gives each thread a heap, whose free memory other threads cannot use.
    with suppress(AttributeError):  # a C library without mallopt()
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    # Nothing in the log format needs these (see "Optimization" in the documentation of logging).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _start_background_services(
    plugins: Mapping[str, type[Plugin[Any]]], services: ExitStack, run: Path
) -> list[Callable[[], bool]]:
    """Start the background services of the plugins; log the failure of one and go on.

    Their sockets are below `run`, which is /run or the directory used instead. Return functions that tell whether a
    service has something to do.
    """
    busy: list[Callable[[], bool]] = []
    for name, plugin in plugins.items():
        try:
            is_busy = services.enter_context(plugin.background_service(run))
        except Exception:
            log.exception("cannot start the background service of %s", name)
        else:
            if is_busy is not None:
                busy.append(is_busy)
    return busy


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


def _restart(listener: socket.socket, stop_fd: int, command: list[str] | None) -> None:
    """Replace this process by the new version of the server, which keeps the socket: calls wait in its queue.

    Stop signals stay blocked until the new version handles them. Return if one has come before. The `command` is that
    of this process if None.
    """
    command = command or [sys.executable, "-P", "-m", "pycni", *sys.argv[1:]]
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if select.select([stop_fd], [], [], 0)[0]:
        return
    unix_socket.pass_listener_on(listener)
    os.execv(command[0], command)  # noqa: S606 - there is no shell


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
