"""The changes of one call and how to undo them, so that a failed ADD is rolled back."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar

from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)
T = TypeVar("T")

Watcher = Callable[[str], AbstractContextManager[None]]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Make every change inside `watcher(what)`, for tools that show or time changes, or make one fail."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _keep() -> None:
    """Undo nothing."""


class Journal:
    """The changes of one call. If the `with` block fails, they are undone, newest first."""

    def __init__(self) -> None:
        self._undos: list[tuple[str, Callable[[], object]]] = []
        self.failures: list[Exception] = []  # of attempts

    def change(
        self, what: str, do: Callable[[], T], undo: Callable[[], object] | None = None, *, atomic: bool = False
    ) -> T:
        """Make a change: return what `do` returns, and call `undo` if the call fails later.

        `what` is a phrase for logs and errors, as in "create bridge cni0". Without `undo` the change is permanent.

        If `do` itself fails, `undo` is called too, because `do` may have made a part of the change. So `undo` must
        accept that there is nothing to undo, and must not destroy what `do` found there. It is not called if `do`
        changes all or nothing (`atomic`), or if the error is a CniError that is marked as `rolled_back`.
        """
        log.debug("%s", what)
        watcher = _watcher.get()
        entry = (what, undo or _keep)
        self._undos.append(entry)  # first: a signal may end the call at any time
        try:
            if watcher is None:
                return do()
            with watcher(what):
                result = do()
                atomic = False  # from here on an error is the watcher's, and the change is made
            return result
        except Exception as error:
            if atomic or undo is None or _is_rolled_back(error):
                self._undos.remove(entry)
            error.add_note(f"while: {what}")
            raise

    def attempt(self, what: str, do: Callable[[], object]) -> None:
        """Call `do`. If it fails, go on and keep the error in `failures`. For DEL and GC."""
        log.debug("%s", what)
        watcher = _watcher.get()
        try:
            with nullcontext() if watcher is None else watcher(what):
                do()
        except Exception as error:  # noqa: BLE001 - whatever the error is, the rest must be deleted too
            error.add_note(f"while: {what}")
            self.failures.append(error)

    def undo(self) -> list[str]:
        """Undo all changes, newest first. Return a message for each that cannot be undone."""
        failures = []
        while self._undos:
            what, undo = self._undos.pop()
            log.debug("undo: %s", what)
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - whatever the error is, the rest must be undone too
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


def _is_rolled_back(error: Exception) -> bool:
    """Return whether the failed change has left nothing. Remove the mark: it does not hold for an enclosing change."""
    if not isinstance(error, CniError) or not error.rolled_back:
        return False
    error.rolled_back = False
    return True
