"""A process that forks a child for each call of a caller in another mount namespace.

The child enters that namespace and executes the call, so that all paths mean what they mean to the caller. Threads
cannot do that: they share what plugins remember of files from call to call. A fork takes a fraction of the time that a
new Python process needs to load its modules.
"""

import gc
import io
import logging
import os
import pickle
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, NoReturn

from pycni.kernel.scheduling import set_background_runner
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
        children: dict[int, int] = {}  # process ids by pidfd
        with stop_signals() as stop_fd, selectors.DefaultSelector() as selector:
            for stop in (channel, stop_fd):
                selector.register(stop, selectors.EVENT_READ, "stop")
            selector.register(calls, selectors.EVENT_READ, "call")
            stopping = False
            while not stopping or children:
                for key, _ in selector.select():
                    if key.data == "stop":
                        stopping = True
                        for ended in (channel, stop_fd, calls):
                            with suppress(KeyError):
                                selector.unregister(ended)
                    elif key.data == "call" and not stopping:
                        pid = self._fork(calls, plugins)
                        if pid:
                            activity.begin()
                            children[pidfd := os.pidfd_open(pid)] = pid
                            selector.register(pidfd, selectors.EVENT_READ, "child")
                    elif key.data == "child":
                        selector.unregister(key.fileobj)
                        os.close(key.fd)
                        os.waitpid(children.pop(key.fd), 0)
                        activity.end()

    @staticmethod
    def _fork(calls: socket.socket, plugins: _Plugins) -> int:
        """Receive a call and fork a child for it. Return its process id, 0 if there is no call."""
        message, descriptors, _, _ = socket.recv_fds(calls, 1, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        try:
            if not message:
                return 0
            if pid := os.fork():
                return pid
            _execute_and_exit(plugins, *descriptors)
        except OSError as error:
            log.warning("cannot fork a process for a call: %s", error)
            return 0
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _execute_and_exit(
    plugins: _Plugins, connection_fd: int, payload: int, host: int, mount: int, container: int | None = None
) -> NoReturn:
    try:
        gc.disable()
        signal.set_wakeup_fd(-1)  # it is shared with the parent process
        with open(payload, "rb") as file:
            file.seek(0)
            type_, env, stdin = pickle.load(file)  # noqa: S301 - written by this program
        call = Call(type_, env, stdin, host, container, mount)
        with socket.socket(fileno=connection_fd) as connection:
            _execute(connection, plugins[type_], call)
    except BaseException:
        log.exception("a forked process has failed")
    finally:
        sys.stderr.flush()
        os._exit(0)


def _execute(connection: socket.socket, plugin: type[Plugin[Any]], call: Call) -> None:
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
    unfinished: list[Future[object]] = []
    background = BackgroundThreads(_MOST_BACKGROUND_THREADS)

    def run_in_background(work: Callable[[], object]) -> "Future[object]":
        unfinished.append(background(work))
        return unfinished[-1]

    set_background_runner(run_in_background)
    reply = execute(plugin, call)
    try:
        wire.send_answer(connection, reply.status, reply.stdout.encode(), reply.stderr.encode())
    except OSError as error:
        log.warning("%s %s: the launcher closed the connection: %s", call.type, call.env.get("CNI_COMMAND"), error)
    connection.close()
    if reply.log_line:
        log.info("%s", reply.log_line)
    wait(unfinished)
