"""Threads for what a call has begun and nobody need wait for: the kernel holds whoever deletes a link for 20 ms."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


class BackgroundThreads:
    """A thread for each piece of work, which ends with it; `most` at a time."""

    def __init__(self, most: int) -> None:
        self._places = threading.BoundedSemaphore(most)

    def __call__(self, work: Callable[[], object]) -> "Future[object]":
        """Begin, as soon as there is a place; what becomes of the work can be asked of what is returned."""
        self._places.acquire()
        future: Future[object] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is for whoever asks
                future.set_exception(error)
            finally:
                self._places.release()

        try:
            threading.Thread(target=run, name="finisher", daemon=True).start()
        except RuntimeError:  # there are too many threads in the world: it is done here
            run()
        return future
