"""Every change to the machine is written down here with its inverse, so that failure undoes it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

Watcher = Callable[[str], AbstractContextManager[None]]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Run every change inside `watcher(what)`: for whoever shows the steps, times them or makes one fail."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _done(what: str, do: Callable[[], T]) -> T:
    log.debug("%s", what)
    watcher = _watcher.get()
    if watcher is None:
        return do()
    with watcher(what):
        return do()


def _nothing() -> None:
    """How to take back what stays."""


class Journal:
    """The changes of one call; leaving it by an exception undoes them, newest first."""

    def __init__(self) -> None:
        self._undos: list[tuple[str, Callable[[], object]]] = []
        self.failures: list[Exception] = []  # of attempts

    def change(self, what: str, do: Callable[[], T], undo: Callable[[], object] | None = None) -> T:
        """Do it, all or nothing. `what` is a phrase for people ("create bridge cni0"); without `undo` it stays.

        `undo` must be content if there is nothing to take back: a signal may come at any moment.
        """
        entry = (what, undo or _nothing)
        self._undos.append(entry)
        try:
            return _done(what, do)
        except Exception as error:
            self._undos.remove(entry)
            error.add_note(f"while: {what}")
            raise

    def attempt(self, what: str, do: Callable[[], object]) -> None:
        """Do it and go on whatever happens: a failure is kept for the end of the call. For all that deletes."""
        try:
            _done(what, do)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be deleted too
            error.add_note(f"while: {what}")
            self.failures.append(error)

    def undo(self) -> list[str]:
        """Take everything back, newest first; returns what could not be taken back."""
        failures = []
        while self._undos:
            what, undo = self._undos.pop()
            log.debug("undo: %s", what)
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be undone too
                failures.append(f"could not undo: {what}: {error}")
        return failures

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for failure in self.undo():
                log.warning("%s", failure)
                error.add_note(failure)
