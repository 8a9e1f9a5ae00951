"""Waiting in a way that lets the server run other calls meanwhile, and work that may end after the call."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.01  # seconds
YieldHook = Callable[[bool], AbstractContextManager[None]]  # its argument is `briefly`
_yield_hook: ContextVar[YieldHook] = ContextVar("yield_hook", default=lambda _briefly: nullcontext())
BackgroundRunner = Callable[[Callable[[], object]], "Future[object]"]
_background_runner: ContextVar[BackgroundRunner | None] = ContextVar("background_runner", default=None)


def yield_turn(*, briefly: bool = False) -> AbstractContextManager[None]:
    """Return a context manager for a section that waits, so that a server runs other calls meanwhile.

    `briefly` is for waits of some milliseconds, as for the kernel; without it the server may start another thread.
    """
    return _yield_hook.get()(briefly)


def poll_with_backoff(seconds: float) -> Iterator[None]:
    """Yield at once, and then after pauses that double from 0.1 to 10 ms, until `seconds` have passed."""
    deadline, pause = monotonic() + seconds, _FIRST_PAUSE
    yield
    while monotonic() < deadline:
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        yield


def lock_file(
    fd: int, seconds: float, *, shared: bool = False, first_pause: float = 0.0002, longest_pause: float = 0.02
) -> bool:
    """Lock an open file, exclusively or `shared` (flock). Return False if it is still locked after `seconds`.

    It polls, since flock() has no timeout; the pauses double from `first_pause` to `longest_pause` seconds.
    """
    deadline, pause = monotonic() + seconds, first_pause
    while not try_lock_file(fd, shared=shared):
        if monotonic() >= deadline:
            return False
        with yield_turn(briefly=True):
            sleep(pause)
        pause = min(2 * pause, longest_pause)
    return True


def try_lock_file(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file, exclusively or `shared`, unless it is locked. Return whether it is locked now."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def set_yield_hook(hook: YieldHook) -> None:
    """Let `yield_turn` return `hook(briefly)` in this thread. For servers."""
    _yield_hook.set(hook)


def background_runner() -> BackgroundRunner | None:
    """Return the function that runs work in the background, or None in a process that ends with its call.

    `runner(work)` starts the work and returns its Future. The call does not wait for the end of the work.
    """
    return _background_runner.get()


def set_background_runner(runner: BackgroundRunner) -> None:
    """Let `background_runner` return `runner` in this thread. For servers."""
    _background_runner.set(runner)
