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
StepAside = Callable[[bool], AbstractContextManager[None]]  # is the wait a brief one?
_step_aside: ContextVar[StepAside] = ContextVar("step_aside", default=lambda _briefly: nullcontext())
Finish = Callable[[Callable[[], object]], "Future[object]"]
_finisher: ContextVar[Finish | None] = ContextVar("finisher", default=None)


def waiting(*, briefly: bool = False) -> AbstractContextManager[None]:
    """Around what may take long: a machine on the network that is to answer, another program that is to end.

    What takes the kernel, or a neighbour, some milliseconds is waited for `briefly`.
    """
    return _step_aside.get()(briefly)


def looks(seconds: float) -> Iterator[None]:
    """A turn at once, and more after pauses that double, for so many seconds: for what the kernel does by and by."""
    deadline, pause = monotonic() + seconds, _FIRST_PAUSE
    yield
    while monotonic() < deadline:
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        yield


def let_pass(step_aside: StepAside) -> None:
    """Enter `step_aside(briefly)` for as long as a call in this thread waits: for servers."""
    _step_aside.set(step_aside)


def finisher() -> Finish | None:
    """Who does, meanwhile, what no caller need see the end of; None in a process that ends with its call."""
    return _finisher.get()


def finish_by(finish: Finish) -> None:
    """Let that be done by `finish(work)`, which begins it and returns what can be asked for its end: for servers."""
    _finisher.set(finish)
