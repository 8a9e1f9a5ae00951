"""pycni serve: the server as a process: its socket, its signals, its restarts."""

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
from pycni.server.server import Server, keep_stdout_clean
from pycni.server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_MADE = "PYCNI_SOCKET_INODE"  # where the socket is not systemd's: our later selves remove it by that
_LOOK_EVERY = 2.0  # seconds between two looks at the installation
_ENDINGS = (signal.SIGTERM, signal.SIGINT)
_DRAIN = 60.0  # seconds for calls that are being answered
_M_ARENA_MAX = -8  # of malloc.h
_COLLECT_AFTER = 2_000  # objects that were made and are still there


def serve(path: Path, workers: int, processes: int) -> None:
    """Serve until SIGTERM or SIGINT, or until the installation has changed: then start anew in this process's place.

    The first of the `processes` is this one, and keeps what lives on between calls.
    """
    keep_stdout_clean()
    installation = Installation()
    plugins = load_plugins()
    with _listening(path) as listener, _signals() as wakeup, ExitStack() as residents:
        _spare_work()
        helpers = [
            WorkerProcess(lambda channel: _help(channel, listener, plugins, workers)) for _ in range(processes - 1)
        ]
        _house(plugins, residents, path.absolute().parent.parent)
        server = Server(listener, plugins, workers)
        for helper in helpers:
            helper.meet()
        server.start()
        _notify("READY=1")
        log.info("serving at %s as %d: %s", path, os.getpid(), ", ".join(plugins))
        while wakeup not in (events := _events(wakeup, helpers)):
            for helper in [one for one in helpers if one in events]:
                log.warning("process %d, which helped to answer calls, has ended", helper.pid)
                helper.join(0)
                helpers.remove(helper)
            if installation.has_changed():
                log.info("the installation has changed: starting anew")
                _notify("RELOADING=1")
                _drain(server, helpers)
                residents.close()
                _start_anew(listener, wakeup)
                break  # it was told to end meanwhile
        _notify("STOPPING=1")
        _drain(server, helpers)


def _events(wakeup: int, helpers: list[WorkerProcess]) -> Collection[int | WorkerProcess]:
    """What has happened: a signal has come, or helpers have ended; nothing after a while."""
    watched: list[int | WorkerProcess] = [wakeup, *helpers]
    return select.select(watched, [], [], _LOOK_EVERY)[0]


def _help(
    channel: socket.socket, listener: socket.socket, plugins: Mapping[str, type[Plugin[Any]]], workers: int
) -> None:
    """What a helping process does: it answers what comes while the first is busy."""
    with _signals() as wakeup:
        channel.recv(1)
        server = Server(listener, plugins, workers)
        channel.send(b"+")
        server.start()
        awaited: list[int | socket.socket] = [wakeup, channel]
        select.select(awaited, [], [])
        server.drain(_DRAIN)


def _drain(server: Server, helpers: list[WorkerProcess]) -> None:
    """Take no more calls, and wait for those that are being answered, in all processes."""
    deadline = time.monotonic() + _DRAIN
    for helper in helpers:
        helper.dismiss()
    ended = [server.drain(_DRAIN), *(helper.join(deadline) for helper in helpers)]
    helpers.clear()
    if not all(ended):
        log.warning("gave up on calls that took longer than %g s", _DRAIN)


def load_plugins() -> dict[str, type[Plugin[Any]]]:
    """All plugins, with nothing of theirs left to be loaded or built by the first call.

    Where one cannot be loaded, its calls are left to the one-shot, which says why.
    """
    plugins = {}
    for name in registry.names():
        try:
            plugins[name] = registry.load(name)
        except (Exception, SystemExit) as error:
            log.error("not served: %s", error, exc_info=not isinstance(error, CniError))
    build_models()
    return plugins


def _spare_work() -> None:
    """Leave out what would be done with each call, and is of no use here."""
    # What stands now stands for ever: the collector need not look at it again. And a call leaves little behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    # Else each thread gets a heap of its own: memory that the others cannot use, for less waiting than there is here.
    with suppress(AttributeError):  # a C library without that
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    # What no line of the log says (see "Optimization" in the documentation of logging).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _house(plugins: Mapping[str, type[Plugin[Any]]], residents: ExitStack, run: Path) -> None:
    """Start what of the plugins lives on between calls; one that does not start harms nobody else.

    Their sockets are where the server's is: below /run, or what stands in for it.
    """
    for name, plugin in plugins.items():
        try:
            residents.enter_context(plugin.background_service(run))
        except Exception:
            log.exception("the resident part of %s does not start", name)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """The socket that systemd, or our former self, has handed down; else a new one."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        with socket.socket(fileno=_FIRST_DESCRIPTOR) as listener:
            listener.set_inheritable(False)
            yield listener
        if inode := os.environ.get(_MADE):
            unix_socket.remove_socket(path, int(inode))
        return
    with unix_socket.unix_listener(path) as listener:
        os.environ[_MADE] = str(path.stat().st_ino)
        yield listener


def _start_anew(listener: socket.socket, wakeup: int) -> None:
    """Become the new version of this server, which goes on at the same socket: calls wait there meanwhile.

    So do signals, until it can answer them. Returns if one has come already.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    if select.select([wakeup], [], [], 0)[0]:
        return
    os.dup2(listener.fileno(), _FIRST_DESCRIPTOR)
    os.set_inheritable(_FIRST_DESCRIPTOR, True)  # which dup2 leaves as it is where the two are the same
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execv(sys.executable, [sys.executable, "-m", "pycni", *sys.argv[1:]])  # noqa: S606 - there is no shell


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable with SIGTERM or SIGINT."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    for number in _ENDINGS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)  # see _start_anew
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


class Installation:
    """What Python's modules are loaded from, looked at from time to time."""

    def __init__(self) -> None:
        self._loaded = self._seen = self._fingerprint()

    def has_changed(self) -> bool:
        """Whether it is another one, and has been since the last look: who is at it just now may be half done."""
        before, self._seen = self._seen, self._fingerprint()
        return self._loaded != self._seen == before

    def _fingerprint(self) -> tuple[int, ...]:
        """What changes when pip installs, upgrades or removes something."""
        times = []
        for directory in sys.path:
            try:
                times.append(os.stat(directory).st_mtime_ns)
            except OSError:
                continue
        return tuple(times)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())
        except OSError as error:  # nobody listens any more: no reason not to serve
            log.warning("cannot tell %s that %s: %s", address, state, error)
