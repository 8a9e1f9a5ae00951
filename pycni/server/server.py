"""Calls of launchers, answered by threads: who leads waits for a call, moves to its caller's namespace, and answers."""

import io
import logging
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from typing import Any

from pycni.kernel.netns import handle_cache
from pycni.kernel.netns.handle import OWN, move_thread_to
from pycni.kernel.scheduling import set_background_runner, set_yield_hook
from pycni.sdk.dispatch import Response, handle_call
from pycni.sdk.invoke import invoke
from pycni.sdk.plugin import Plugin
from pycni.server import wire
from pycni.server.background import BackgroundThreads
from pycni.server.leader_follower import LeaderFollower
from pycni.server.wire import Call, WireError

log = logging.getLogger(__name__)

_said: ContextVar[io.StringIO | None] = ContextVar("said", default=None)
_PATIENCE = struct.pack("@ll", 10, 0)  # for a launcher to send its call: a struct timeval
_BACKGROUND_THREADS = 32  # threads, at most, for what no caller need wait for
_STAND_INS = 16  # times the number of workers: how many threads there are at most, when calls wait for the world


class Server:
    """Serves a listening socket by `workers` threads. One call a thread: further ones wait in the socket's queue.

    They take turns (turns.py). A thread whose call waits for something (`pycni.sdk.waiting`) lets the others go on, and
    is stood in for by another one if that may take long.
    """

    def __init__(self, listener: socket.socket, plugins: Mapping[str, type[Plugin[Any]]], workers: int) -> None:
        self._listener = listener
        self._plugins = plugins
        self._stop = os.fdopen(os.eventfd(0, os.EFD_CLOEXEC), "wb", buffering=0)  # closed once all has ended
        self._stopping = False
        # All leaders wait here, so that of several processes the first one that is idle gets a call.
        self._calls = self._await_calls()
        self._calls_in_line = self._calls
        own = os.stat(OWN)
        self._home = own.st_dev, own.st_ino  # a thread begins where the one is that has started it
        listener.setblocking(False)
        # Each moves from namespace to namespace, and never comes back to the process's own.
        self._context = copy_context()
        self._threads = [self._new_thread() for _ in range(workers)]
        self.turns, self._in_line = LeaderFollower(), threading.Lock()
        self._most, self._surplus, self._lock = workers * _STAND_INS, 0, threading.Lock()
        self._background_runner = BackgroundThreads(_BACKGROUND_THREADS)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._context.copy().run, args=(self._work,), name="worker", daemon=True)

    def _await_calls(self) -> select.epoll:
        waiting = select.epoll()
        # A call wakes one thread, not all: the first that waits, in the order in which this was said.
        waiting.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        waiting.register(self._stop, select.EPOLLIN)
        return waiting

    def start(self) -> None:
        """Begin to answer."""
        self._calls_in_line = self._await_calls()
        for thread in self._threads:
            thread.start()

    def drain(self, patience: float) -> bool:
        """Take no more calls and wait for those that are being answered; whether all came to their end."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        if not self._stop.closed:
            os.eventfd_write(self._stop.fileno(), 1)
        deadline = time.monotonic() + patience
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            return False
        for waiting in (self._calls, self._calls_in_line, self._stop):
            waiting.close()
        return True

    def hire(self) -> bool:
        """Let another thread take this one's place; whether there is one."""
        with self._lock:
            if self._surplus:
                self._surplus -= 1
                return True
            if self._stopping or len(self._threads) >= self._most:
                return False
            thread = self._new_thread()
            self._threads.append(thread)
        thread.start()
        return True

    def dismiss(self) -> None:
        """There is a thread too many now: the first that has nothing to do may go."""
        with self._lock:
            self._surplus += 1

    def _is_over(self) -> bool:
        return self._stopping

    def _is_surplus(self) -> bool:
        """Whether this thread is one too many, and may go."""
        with self._lock:
            if not self._surplus:
                return False
            self._surplus -= 1
            self._threads.remove(threading.current_thread())
            return True

    def _work(self) -> None:
        set_yield_hook(partial(_YieldedTurn, self))
        set_background_runner(self._background_runner)
        handle_cache.enable(self._home)
        try:
            self._answer_calls()
        finally:
            self.turns.end()
            handle_cache.close_all()

    def _answer_calls(self) -> None:
        if self.turns.take_first():
            self._lead()
        while not self._is_over() and not self._is_surplus():
            with self._in_line:
                self._calls_in_line.poll()
                if self._is_over() or not self.turns.take():
                    continue
            self._answer_call()
            self._lead()

    def _lead(self) -> None:
        """Answer one call after the other, until somebody else leads."""
        while not self._is_over() and not self._surplus and self.turns.rest():
            self._calls.poll()
            self.turns.go_on()
            self._answer_call()
        self.turns.end()

    def _answer_call(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # another process was first, or it is time to stop
        except OSError as error:
            log.warning("cannot accept: %s", error)
            return
        with connection:
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        """One connection to its end; nothing that happens on it reaches the others."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        try:
            call = wire.receive(connection)
        except (WireError, OSError) as error:
            log.warning("not a call: %s", error)
            return
        reply = None
        try:
            with closing(call):  # before the launcher ends: the next call should find this thread idle
                reply = self._reply(connection, call)
            if reply is None:
                connection.sendall(wire.REFUSED)
            else:
                wire.send_answer(connection, reply.status, reply.stdout.encode(), reply.stderr.encode())
        except OSError as error:
            log.warning("%s %s: the launcher went away: %s", call.type, call.env.get("CNI_COMMAND"), error)
        if reply is not None and reply.log_line:  # nobody waits for that
            log.info("%s", reply.log_line)

    def _reply(self, connection: socket.socket, call: Call) -> Response | None:
        """The answer; None if nothing is done, because this is not its server or the launcher has changed its mind."""
        plugin = self._plugins.get(call.type)
        if self._stopping or plugin is None or not _can_serve(connection, call) or not wire.agreed(connection):
            return None
        return _answer(plugin, call)


class _YieldedTurn:
    """Around what a call waits for."""

    __slots__ = ("_briefly", "_hired", "_server")

    def __init__(self, server: Server, briefly: bool) -> None:  # noqa: FBT001 - see patience.StepAside
        self._server, self._briefly, self._hired = server, briefly, False

    def __enter__(self) -> None:
        self._server.turns.end()
        self._hired = not self._briefly and self._server.hire()

    def __exit__(self, *_: object) -> None:
        if self._hired:
            self._server.dismiss()
        self._server.turns.come_back()


def _answer(plugin: type[Plugin[Any]], call: Call) -> Response:
    """The answer, with what the plugin and its delegates have said on the way before its own stderr."""
    move_thread_to(call.host)
    token = _said.set(io.StringIO())
    try:
        reply = handle_call(call.type, plugin, call.env, call.stdin, invoke, netns=call.container, host=call.host)
        said = _said.get()
        return replace(reply, stderr=said.getvalue() + reply.stderr) if said else reply
    finally:
        _said.reset(token)


def _can_serve(connection: socket.socket, call: Call) -> bool:
    if call.env.get("CNI_COMMAND", "") in ("", "VERSION"):  # touches no path; libcni asks with "dummy" for each
        return wire.may_be_served(connection)
    # A relative path is relative to the caller's directory, which is not ours.
    paths = [*call.env.get("CNI_PATH", "").split(":"), call.env.get("CNI_NETNS", "") or "/"]
    return all(path.startswith("/") for path in paths if path) and wire.may_be_served(connection)


def keep_stdout_clean() -> None:
    """What a plugin prints goes to its caller, as from a one-shot; the server has no stdout of its own."""
    log_file = io.TextIOWrapper(os.fdopen(os.dup(2), "wb", buffering=0), write_through=True)
    sys.stdout = sys.stderr = _Voices(log_file)
    os.dup2(2, 1)


class _Voices(io.TextIOBase):
    """A stream that keeps apart what the threads say: during a call for the caller, else for the log."""

    def __init__(self, log_file: io.TextIOBase) -> None:
        self._log_file = log_file

    def write(self, text: str, /) -> int:
        """Say it."""
        said = _said.get()
        return self._log_file.write(text) if said is None else said.write(text)

    def flush(self) -> None:
        """Nothing is held back."""
