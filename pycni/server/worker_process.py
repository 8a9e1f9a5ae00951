"""Additional processes that answer calls at the same socket: one Python interpreter uses one CPU at a time."""

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)


class WorkerProcess:
    """A forked process that runs `work(channel)`. It sees the end of its parent as the end of the channel."""

    def __init__(self, work: Callable[[socket.socket], object]) -> None:
        """Fork. This process must have only one thread."""
        self._channel, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._channel.close()
            _work_and_exit(work, theirs)
        theirs.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process has ended."""
        return self._channel.fileno()

    def wait_until_ready(self) -> None:
        """Let the process continue, and wait until it reports that it is ready."""
        with suppress(ConnectionError):  # it has ended; the main loop sees that at the descriptor
            self._channel.send(b"+")
            self._channel.recv(1)

    def request_stop(self) -> None:
        """Ask the process to end; do not wait for it."""
        self._channel.shutdown(socket.SHUT_WR)

    def join(self, deadline: float) -> bool:
        """Wait for the end of the process until the deadline (of time.monotonic()), and kill it after that.

        Return whether it ended by itself.
        """
        ended = bool(select.select([self], [], [], max(deadline - time.monotonic(), 0))[0])
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._channel.close()
        return ended


def _work_and_exit(work: Callable[[socket.socket], object], channel: socket.socket) -> None:
    status = 1
    try:
        work(channel)
        status = 0
    except BaseException:
        log.exception("worker process %d failed", os.getpid())
    finally:
        os._exit(status)
