"""The threads of a server process: each accepts a call, enters its caller's network namespace and executes it."""

import json
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from pycni.kernel.netns import handle_cache
from pycni.kernel.netns.handle import OWN, move_thread_to
from pycni.kernel.scheduling import set_background_runner, set_yield_hook
from pycni.sdk.dispatch import Response
from pycni.sdk.plugin import Plugin
from pycni.sdk.unix_socket import peer_credentials
from pycni.server import wire
from pycni.server.access import Access, access
from pycni.server.activity import Activity, Slot
from pycni.server.background import BackgroundThreads
from pycni.server.execution import enter_netns, execute
from pycni.server.fork_server import ForkServer
from pycni.server.leader_follower import LeaderFollower
from pycni.server.wire import Call, StatusRequest, WireError

log = logging.getLogger(__name__)

_RECEIVE_TIMEOUT = struct.pack("@ll", 10, 0)  # struct timeval: for a launcher to send its call
_MOST_BACKGROUND_THREADS = 32
_MOST_THREADS_PER_WORKER = 16  # including the threads that replace workers whose calls wait


class Server:
    """Answers the calls that arrive at a listening socket, with `workers` threads; further calls wait in its queue.

    One thread at a time runs Python code (leader_follower.py). A thread whose call waits (`pycni.sdk.yield_turn`) lets
    others run, and is replaced by an additional thread for a wait that may be long.
    """

    def __init__(
        self,
        listener: socket.socket,
        plugins: Mapping[str, type[Plugin[Any]]],
        workers: int,
        *,
        activity: Slot | None = None,
        status: Callable[[], Mapping[str, Any]] = dict,
        fork_server: ForkServer | None = None,
    ) -> None:
        """`status` returns what `pycni server` shows. `fork_server` executes calls from other mount namespaces."""
        self._listener = listener
        self._plugins = plugins
        self._activity = activity or Activity(1).slot(0)
        self._status, self._fork_server = status, fork_server
        self._stop = os.fdopen(os.eventfd(0, os.EFD_CLOEXEC), "wb", buffering=0)  # drain() makes it readable
        self._stopping = False
        # The leaders of all processes wait at an epoll set that was registered first: an idle process gets the call.
        self._leader_epoll = self._new_epoll()
        self._follower_epoll = self._leader_epoll
        # Threads start in the namespace of the thread that starts them.
        self._own_netns_fd = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        own = os.fstat(self._own_netns_fd)
        self._own_netns = own.st_dev, own.st_ino
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
        if not self._stop.closed:
            for closable in (self._leader_epoll, self._follower_epoll, self._stop):
                closable.close()
            os.close(self._own_netns_fd)
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
            received = wire.receive(connection)
        except (WireError, OSError) as error:
            log.warning("cannot read a call: %s", error)
            return
        if isinstance(received, StatusRequest):
            self._send_status(connection)
            return
        self._activity.begin()
        try:
            self._serve_call(connection, received)
        finally:
            self._activity.end()

    def _serve_call(self, connection: socket.socket, call: Call) -> None:
        reply: Response | bytes = wire.REFUSED
        try:
            with closing(call):  # before the answer is sent: after it, this thread should be idle for the next call
                reply = self._reply(connection, call)
            if isinstance(reply, bytes):
                connection.sendall(reply)
                return
            wire.send_answer(connection, reply.status, reply.stdout.encode(), reply.stderr.encode())
        except OSError as error:
            log.warning("%s %s: the launcher closed the connection: %s", call.type, call.env.get("CNI_COMMAND"), error)
        finally:
            # After the answer, so that no caller waits for it. A thread keeps the namespace that it is in alive.
            move_thread_to(self._own_netns_fd)
        if isinstance(reply, Response) and reply.log_line:
            log.info("%s", reply.log_line)

    def _reply(self, connection: socket.socket, call: Call) -> Response | bytes:
        """Execute the call and return the response, or what to send instead, after which the server does nothing."""
        plugin = self._plugins.get(call.type)
        if self._stopping or plugin is None:
            return wire.REFUSED
        match access(connection, call, can_fork=self._fork_server is not None):
            case Access.THREAD:
                try:
                    enter_netns(call)
                except OSError as error:  # it belongs to a parent user namespace, for example
                    log.warning("%s: cannot enter the caller's network namespace: %s", call.type, error)
                    return wire.WRONG_NAMESPACES
                return execute(plugin, call) if wire.accept_call(connection) else wire.REFUSED
            case Access.FORK:
                assert self._fork_server is not None
                return b"" if self._fork_server.execute(connection, call) else wire.REFUSED
            case Access.WRONG_NAMESPACES:
                return wire.WRONG_NAMESPACES
            case _:
                return wire.REFUSED

    def _send_status(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if peer_credentials(connection).is_trusted:
                connection.sendall(json.dumps(self._status()).encode())


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
