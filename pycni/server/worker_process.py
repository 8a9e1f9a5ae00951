"""Further processes that answer at the same socket: one process has one interpreter, and so one processor."""

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
    """A process that does something of its own until its channel to this one ends, as it does with this process."""

    def __init__(self, work: Callable[[socket.socket], object]) -> None:
        """Start it. No other thread of this process may run yet."""
        self._channel, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._channel.close()
            _work_and_exit(work, theirs)
        theirs.close()

    def fileno(self) -> int:
        """A descriptor that is readable once it has ended."""
        return self._channel.fileno()

    def meet(self) -> None:
        """Let it go on, and wait until it has come as far as it says."""
        with suppress(ConnectionError):  # it has ended: whoever looks at the descriptor will see
            self._channel.send(b"+")
            self._channel.recv(1)

    def dismiss(self) -> None:
        """Let it come to its end."""
        self._channel.shutdown(socket.SHUT_WR)

    def join(self, deadline: float) -> bool:
        """Wait until it has ended, and kill it if it has not by then (time.monotonic()); whether it has by itself."""
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
        log.exception("a helping process fails")
    finally:
        os._exit(status)
