"""The threads of a server process: each accepts a call, enters its caller's network namespace and executes it."""

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

_call_stderr: ContextVar[io.StringIO | None] = ContextVar("call_stderr", default=None)
_RECEIVE_TIMEOUT = struct.pack("@ll", 10, 0)  # struct timeval: for a launcher to send its call
_MOST_BACKGROUND_THREADS = 32
_MOST_THREADS_PER_WORKER = 16  # including the threads that replace workers whose calls wait


class Server:
    """Answers the calls that arrive at a listening socket, with `workers` threads; further calls wait in its queue.

    One thread at a time runs Python code (leader_follower.py). A thread whose call waits (`pycni.sdk.yield_turn`) lets
    others run, and is replaced by an additional thread for a wait that may be long.
    """

    def __init__(self, listener: socket.socket, plugins: Mapping[str, type[Plugin[Any]]], workers: int) -> None:
        self._listener = listener
        self._plugins = plugins
        self._stop = os.fdopen(os.eventfd(0, os.EFD_CLOEXEC), "wb", buffering=0)  # drain() makes it readable
        self._stopping = False
        # The leaders of all processes wait at an epoll set that was registered first: an idle process gets the call.
        self._leader_epoll = self._new_epoll()
        self._follower_epoll = self._leader_epoll
        own = os.stat(OWN)
        self._own_netns = own.st_dev, own.st_ino  # threads start in the namespace of the thread that starts them
        listener.setblocking(False)
        self._context = copy_context()
        self._threads = [self._new_thread() for _ in range(workers)]
        self.leadership, self._follower_lock = LeaderFollower(), threading.Lock()
        self._most_threads, self._surplus, self._lock = workers * _MOST_THREADS_PER_WORKER, 0, threading.Lock()
        self._background_runner = BackgroundThreads(_MOST_BACKGROUND_THREADS)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._context.copy().run, args=(self._work,), name="worker", daemon=True)

    def _new_epoll(self) -> select.epoll:
        epoll = select.epoll()
        # EPOLLEXCLUSIVE: a call wakes one waiter instead of all, in the order of registration.
        epoll.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        epoll.register(self._stop, select.EPOLLIN)
        return epoll

    def start(self) -> None:
        """Start to answer calls."""
        self._follower_epoll = self._new_epoll()
        for thread in self._threads:
            thread.start()

    def drain(self, timeout: float) -> bool:
        """Accept no more calls and wait up to `timeout` seconds for those in progress. Return whether all ended."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        if not self._stop.closed:
            os.eventfd_write(self._stop.fileno(), 1)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            return False
        for closable in (self._leader_epoll, self._follower_epoll, self._stop):
            closable.close()
        return True

    def add_thread(self) -> bool:
        """Start a thread that replaces the calling one while it waits. Return False if there are too many."""
        with self._lock:
            if self._surplus:
                self._surplus -= 1
                return True
            if self._stopping or len(self._threads) >= self._most_threads:
                return False
            thread = self._new_thread()
            self._threads.append(thread)
        thread.start()
        return True

    def remove_thread(self) -> None:
        """End one thread: the first that is idle."""
        with self._lock:
            self._surplus += 1

    def _is_stopping(self) -> bool:  # a method: mypy takes an attribute for unchanged after a call
        return self._stopping

    def _leave_if_surplus(self) -> bool:
        """Remove this thread from the pool if there is one too many; return whether it is to end."""
        with self._lock:
            if not self._surplus:
                return False
            self._surplus -= 1
            self._threads.remove(threading.current_thread())
            return True

    def _work(self) -> None:
        set_yield_hook(partial(_Yield, self))
        set_background_runner(self._background_runner)
        handle_cache.enable(self._own_netns)
        try:
            self._answer_calls()
        finally:
            self.leadership.resign()
            handle_cache.close_all()

    def _answer_calls(self) -> None:
        if self.leadership.lead_if_vacant():
            self._lead()
        while not self._is_stopping() and not self._leave_if_surplus():
            with self._follower_lock:
                self._follower_epoll.poll()
                if self._is_stopping() or not self.leadership.wait_for_lead():
                    continue
            self._answer_call()
            self._lead()

    def _lead(self) -> None:
        """Response calls until another thread leads."""
        while not self._is_stopping() and not self._surplus and self.leadership.set_idle():
            self._leader_epoll.poll()
            self.leadership.set_busy()
            self._answer_call()
        self.leadership.resign()

    def _answer_call(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # another process has accepted it, or the server stops
        except OSError as error:
            log.warning("cannot accept a connection: %s", error)
            return
        with connection:
            self._serve_connection(connection)

    def _serve_connection(self, connection: socket.socket) -> None:
        """Serve one connection until its end. Log its errors instead of raising them."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        try:
            call = wire.receive(connection)
        except (WireError, OSError) as error:
            log.warning("cannot read a call: %s", error)
            return
        reply = None
        try:
            with closing(call):  # before the answer is sent: after it, this thread should be idle for the next call
                reply = self._reply(connection, call)
            if reply is None:
                connection.sendall(wire.REFUSED)
            else:
                wire.send_answer(connection, reply.status, reply.stdout.encode(), reply.stderr.encode())
        except OSError as error:
            log.warning("%s %s: the launcher closed the connection: %s", call.type, call.env.get("CNI_COMMAND"), error)
        if reply is not None and reply.log_line:  # after the answer, so that no caller waits for the log
            log.info("%s", reply.log_line)

    def _reply(self, connection: socket.socket, call: Call) -> Response | None:
        """Execute the call and return its answer; None if the server refuses it or the launcher has withdrawn it."""
        plugin = self._plugins.get(call.type)
        if self._stopping or plugin is None or not _can_serve(connection, call) or not wire.accept_call(connection):
            return None
        return _answer(plugin, call)


class _Yield:
    """The context of a wait (`pycni.sdk.yield_turn`): other threads run meanwhile."""

    __slots__ = ("_briefly", "_replaced", "_server")

    def __init__(self, server: Server, briefly: bool) -> None:  # noqa: FBT001 - see scheduling.YieldHook
        self._server, self._briefly, self._replaced = server, briefly, False

    def __enter__(self) -> None:
        self._server.leadership.resign()
        self._replaced = not self._briefly and self._server.add_thread()

    def __exit__(self, *_: object) -> None:
        if self._replaced:
            self._server.remove_thread()
        self._server.leadership.resume()


def _answer(plugin: type[Plugin[Any]], call: Call) -> Response:
    """Execute the call. Its stderr begins with what the plugin and its delegates wrote to stderr or stdout."""
    move_thread_to(call.host)
    token = _call_stderr.set(io.StringIO())
    try:
        reply = handle_call(call.type, plugin, call.env, call.stdin, invoke, netns=call.container, host=call.host)
        written = _call_stderr.get()
        return replace(reply, stderr=written.getvalue() + reply.stderr) if written else reply
    finally:
        _call_stderr.reset(token)


def _can_serve(connection: socket.socket, call: Call) -> bool:
    # VERSION uses no path, and libcni sends "dummy" for each.
    if call.env.get("CNI_COMMAND", "") in ("", "VERSION"):
        return wire.may_be_served(connection)
    # A relative path is relative to the caller's working directory, which is not the server's.
    paths = [*call.env.get("CNI_PATH", "").split(":"), call.env.get("CNI_NETNS", "") or "/"]
    return all(path.startswith("/") for path in paths if path) and wire.may_be_served(connection)


def redirect_output() -> None:
    """Send what a plugin prints during a call to its caller's stderr; all other output goes to the server's stderr."""
    log_file = io.TextIOWrapper(os.fdopen(os.dup(2), "wb", buffering=0), write_through=True)
    sys.stdout = sys.stderr = _PerCallStream(log_file)
    os.dup2(2, 1)


class _PerCallStream(io.TextIOBase):
    """A stream that separates threads: text written during a call goes to its caller, other text to the log."""

    def __init__(self, log_file: io.TextIOBase) -> None:
        self._log_file = log_file

    def write(self, text: str, /) -> int:
        """Write the text."""
        call_stderr = _call_stderr.get()
        return self._log_file.write(text) if call_stderr is None else call_stderr.write(text)

    def flush(self) -> None:
        """Do nothing: neither target is buffered."""
