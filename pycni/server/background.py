"""Threads for work that a call has started and whose end its caller need not wait for.

The kernel blocks the thread that deletes a link for about 20 ms after the link is gone, for example.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future


class BackgroundThreads:
    """Runs each piece of work in a thread of its own, `limit` threads at a time."""

    def __init__(self, limit: int) -> None:
        self._free_slots = threading.BoundedSemaphore(limit)

    def __call__(self, work: Callable[[], object]) -> "Future[object]":
        """Start the work, after waiting for a free slot, and return a future of its result."""
        self._free_slots.acquire()
        future: Future[object] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - Future.result() raises it
                future.set_exception(error)
            finally:
                self._free_slots.release()

        try:
            threading.Thread(target=run, name="background", daemon=True).start()
        except RuntimeError:  # the process may not start another thread: do the work in this one
            run()
        return future
