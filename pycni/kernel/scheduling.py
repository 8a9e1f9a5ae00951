"""Whoever waits for the world, for seconds perhaps, says so: a server lets other calls pass meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.01  # seconds
YieldHook = Callable[[bool], AbstractContextManager[None]]  # is the wait a brief one?
_yield_hook: ContextVar[YieldHook] = ContextVar("step_aside", default=lambda _briefly: nullcontext())
BackgroundRunner = Callable[[Callable[[], object]], "Future[object]"]
_background_runner: ContextVar[BackgroundRunner | None] = ContextVar("finisher", default=None)


def yield_turn(*, briefly: bool = False) -> AbstractContextManager[None]:
    """Around what may take long: a machine on the network that is to answer, another program that is to end.

    What takes the kernel, or a neighbour, some milliseconds is waited for `briefly`.
    """
    return _yield_hook.get()(briefly)


def poll_with_backoff(seconds: float) -> Iterator[None]:
    """A turn at once, and more after pauses that double, for so many seconds: for what the kernel does by and by."""
    deadline, pause = monotonic() + seconds, _FIRST_PAUSE
    yield
    while monotonic() < deadline:
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        yield


def set_yield_hook(step_aside: YieldHook) -> None:
    """Enter `step_aside(briefly)` for as long as a call in this thread waits: for servers."""
    _yield_hook.set(step_aside)


def background_runner() -> BackgroundRunner | None:
    """Who does, meanwhile, what no caller need see the end of; None in a process that ends with its call."""
    return _background_runner.get()


def set_background_runner(finish: BackgroundRunner) -> None:
    """Let that be done by `finish(work)`, which begins it and returns what can be asked for its end: for servers."""
    _background_runner.set(finish)
