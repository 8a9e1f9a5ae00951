"""Whoever waits for the world, for seconds perhaps, says so: a server lets other calls pass meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

_step_aside: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar("step_aside", default=nullcontext)


@contextmanager
def waiting() -> Iterator[None]:
    """Around what may take long: a machine on the network that is to answer, another program that is to end."""
    with _step_aside.get()():
        yield


def let_pass(step_aside: Callable[[], AbstractContextManager[None]]) -> None:
    """Enter `step_aside()` for as long as a call in this thread waits: for servers."""
    _step_aside.set(step_aside)
