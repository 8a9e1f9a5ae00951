"""A process that forks children for the calls of callers in other mount namespaces.

A child enters a caller's mount namespace and executes the call, so that all paths mean what they mean to the caller.
Threads cannot do that: they share what plugins remember of files from call to call. A fork takes a fraction of the time
that a new Python process needs to load its modules. A child stays for some seconds, since the next plugin of the chain
is often called from the same mount namespace: rootless podman has one for each of its commands.
"""

import io
import json
import logging
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from typing import Any, NoReturn, Self

from pycni.kernel.netns.handle import OWN, move_thread_to
from pycni.kernel.scheduling import set_background_runner
from pycni.sdk.dispatch import handle_call
from pycni.sdk.invoke import invoke
from pycni.sdk.plugin import Plugin
from pycni.server import namespaces, wire
from pycni.server.activity import Slot
from pycni.server.background import BackgroundThreads
from pycni.server.execution import enter_netns, execute
from pycni.server.signals import stop_signals
from pycni.server.wire import Call
from pycni.server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

_MOST_CHILDREN = 64
_MOST_BACKGROUND_THREADS = 32
_DESCRIPTORS = 5  # connection, payload, host, mount, container
_STAY = 2.0  # seconds that a child waits for the next call
_Plugins = Mapping[str, type[Plugin[Any]]]


class ForkServer(WorkerProcess):
    """The process. It has one thread: a lock that another thread holds during a fork would stay locked in the child."""

    def __init__(self, plugins: _Plugins, activity: Slot) -> None:
        """Fork the process. This one must have only one thread."""
        self._calls, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(lambda channel: self._run(channel, theirs, plugins, activity))
        theirs.close()

    def execute(self, connection: socket.socket, call: Call) -> bool:
        """Have a child execute the call and send the answer. Return False if the process has ended."""
        assert call.mount is not None
        payload = os.memfd_create("call", os.MFD_CLOEXEC)
        try:
            with io.FileIO(payload, "wb", closefd=False) as file, io.BufferedWriter(file) as writer:
                pickle.dump((call.type, call.env, call.stdin), writer, pickle.HIGHEST_PROTOCOL)
            descriptors = [connection.fileno(), payload, call.host, call.mount]
            if call.container is not None:
                descriptors.append(call.container)
            socket.send_fds(self._calls, [b"+"], descriptors)
        except OSError:
            return False
        finally:
            os.close(payload)
        return True

    def _run(self, channel: socket.socket, calls: socket.socket, plugins: _Plugins, activity: Slot) -> None:
        self._calls.close()
        channel.recv(1)
        channel.send(b"+")
        with stop_signals() as stop_fd, _Children(plugins, activity, [channel, calls]) as children:
            selector = children.selector
            selector.register(channel, selectors.EVENT_READ)
            selector.register(stop_fd, selectors.EVENT_READ)
            selector.register(calls, selectors.EVENT_READ)
            children.add_spare()
            while True:
                events = {key.fileobj for key, _ in selector.select(_STAY)}
                if channel in events or stop_fd in events:
                    return
                children.handle(events)
                if calls in events:
                    _, descriptors, _, _ = socket.recv_fds(calls, 1, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
                    children.execute(descriptors)


class _Child:
    """A child, as its parent sees it."""

    def __init__(self, plugins: _Plugins, inherited: Sequence[socket.socket]) -> None:
        """Fork it. It closes the sockets that it inherits. Raises OSError."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.mount = 0  # inode of its mount namespace, 0 before its first call
        self.idle_since: float | None = time.monotonic()  # None during a call
        try:
            self.pid = os.fork()
            if self.pid == 0:
                for one in (self.channel, *inherited):
                    one.close()
                _run_child(theirs, plugins)
        except OSError:
            self.channel.close()
            raise
        finally:
            theirs.close()


class _Children:
    """All children of the fork server."""

    def __init__(self, plugins: _Plugins, activity: Slot, own_sockets: Sequence[socket.socket]) -> None:
        self._plugins, self._activity, self._own_sockets = plugins, activity, own_sockets
        self._by_channel: dict[socket.socket, _Child] = {}
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the children end after their calls."""
        self.selector.close()
        for child in self._by_channel.values():
            with suppress(OSError):
                child.channel.shutdown(socket.SHUT_WR)
        for child in self._by_channel.values():
            os.waitpid(child.pid, 0)
            child.channel.close()

    def add_spare(self) -> _Child | None:
        """Fork a child for the next mount namespace, unless there is one or there are too many."""
        spare = next((child for child in self._by_channel.values() if not child.mount), None)
        if spare is None and len(self._by_channel) < _MOST_CHILDREN:
            try:
                spare = _Child(self._plugins, [*self._own_sockets, *self._by_channel])
            except OSError as error:
                log.warning("cannot fork a process for calls: %s", error)
                return None
            self._by_channel[spare.channel] = spare
            self.selector.register(spare.channel, selectors.EVENT_READ)
        return spare

    def execute(self, descriptors: list[int]) -> None:
        """Pass a call to an idle child in its mount namespace, or to a spare one. The launcher waits for neither."""
        try:
            mount = os.fstat(descriptors[3]).st_ino
            idle = [child for child in self._by_channel.values() if child.idle_since is not None]
            child = next((child for child in idle if child.mount == mount), None) or self.add_spare()
            if child is None:
                return  # the connection is closed, and the launcher becomes the one-shot process
            socket.send_fds(child.channel, [b"+"], descriptors)
            child.mount, child.idle_since = mount, None
            self._activity.begin()
        except (OSError, IndexError) as error:
            log.warning("cannot pass a call to a child: %s", error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def handle(self, events: set[Any]) -> None:
        """Note which children have finished a call or have ended, and end those that have had no call for a while."""
        now = time.monotonic()
        for channel, child in list(self._by_channel.items()):
            if channel in events:
                finished = self._received(channel)
                if child.idle_since is None:
                    self._activity.end()
                child.idle_since = now
                if not finished:
                    self._remove(child)
            elif child.mount and child.idle_since is not None and now - child.idle_since > _STAY:
                self._remove(child)
        self.add_spare()

    @staticmethod
    def _received(channel: socket.socket) -> bool:
        with suppress(ConnectionError):
            return bool(channel.recv(1))
        return False

    def _remove(self, child: _Child) -> None:
        self.selector.unregister(child.channel)
        del self._by_channel[child.channel]
        with suppress(OSError):
            child.channel.shutdown(socket.SHUT_WR)
        os.waitpid(child.pid, 0)  # it ends at once: it is idle
        child.channel.close()


def _run_child(calls: socket.socket, plugins: _Plugins) -> NoReturn:
    """Execute calls until the parent closes the channel."""
    try:
        signal.set_wakeup_fd(-1)  # it is shared with the parent
        own_netns = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        unfinished: list[Future[object]] = []
        _set_background_runner(unfinished)
        _touch_memory(plugins)
        while True:
            message, descriptors, _, _ = socket.recv_fds(calls, 1, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if not message:
                break
            _execute(plugins, *descriptors)
            move_thread_to(own_netns)
            with suppress(BrokenPipeError):
                calls.send(b".")
            unfinished[:] = [future for future in unfinished if not future.done()]
        wait(unfinished)
    except BaseException:
        log.exception("a forked process has failed")
    finally:
        sys.stderr.flush()
        os._exit(0)


def _set_background_runner(unfinished: list[Future[object]]) -> None:
    background = BackgroundThreads(_MOST_BACKGROUND_THREADS)

    def run(work: Callable[[], object]) -> "Future[object]":
        unfinished.append(background(work))
        return unfinished[-1]

    set_background_runner(run)


def _touch_memory(plugins: _Plugins) -> None:
    """Execute a call without effects: the first write to each page that is shared with the parent takes its time."""
    plugin = plugins.get("static")
    if plugin is not None:
        ipam = {"type": "static", "addresses": [{"address": "192.0.2.1/24"}]}
        config = {"cniVersion": "1.0.0", "name": "none", "type": "static", "ipam": ipam}
        env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "none", "CNI_IFNAME": "none", "CNI_NETNS": "/dev/null"}
        handle_call("static", plugin, {**env, "CNI_PATH": "/nowhere"}, json.dumps(config).encode(), invoke)


def _execute(
    plugins: _Plugins, connection_fd: int, payload: int, host: int, mount: int, container: int | None = None
) -> None:
    with socket.socket(fileno=connection_fd) as connection, open(payload, "rb") as file:
        file.seek(0)
        type_, env, stdin = pickle.load(file)  # noqa: S301 - written by this program
        with closing(Call(type_, env, stdin, host, container, mount)) as call:
            try:
                _execute_call(connection, plugins[type_], call)
            except OSError as error:
                log.warning("%s %s: the launcher closed the connection: %s", type_, env.get("CNI_COMMAND"), error)


def _execute_call(connection: socket.socket, plugin: type[Plugin[Any]], call: Call) -> None:
    assert call.mount is not None
    try:
        namespaces.enter_mount(call.mount)
        enter_netns(call)
    except OSError as error:
        log.warning("%s: cannot enter the caller's namespaces: %s", call.type, error)
        connection.sendall(wire.WRONG_NAMESPACES)
        return
    if not wire.accept_call(connection):
        connection.sendall(wire.REFUSED)
        return
    os.environ.clear()
    os.environ |= call.env
    reply = execute(plugin, call)
    wire.send_answer(connection, reply.status, reply.stdout.encode(), reply.stderr.encode())
    if reply.log_line:
        log.info("%s", reply.log_line)
