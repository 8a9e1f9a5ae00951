"""The journal: changes, undo and failures."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pycni.kernel.journal import Journal, watching


def fail() -> None:
    raise OSError("broken")


def test_failure_undoes_changes_in_reverse_order() -> None:
    undone: list[str] = []
    with pytest.raises(OSError, match="broken"), Journal() as journal:
        journal.change("one", lambda: None, lambda: undone.append("one"))
        journal.change("shared", lambda: None)
        journal.change("two", lambda: None, lambda: undone.append("two"))
        journal.change("three", fail, lambda: undone.append("three"))
    assert undone == ["two", "one"]


def test_error_has_a_note_that_names_the_change() -> None:
    with pytest.raises(OSError, match="broken") as caught, Journal() as journal:
        journal.change("create bridge cni0", fail)
    assert caught.value.__notes__ == ["while: create bridge cni0"]


def test_failed_undo_is_noted_and_the_other_changes_are_undone() -> None:
    undone: list[str] = []
    with pytest.raises(ValueError, match="wrong") as caught, Journal() as journal:
        journal.change("one", lambda: None, lambda: undone.append("one"))
        journal.change("two", lambda: None, fail)
        raise ValueError("wrong")
    assert undone == ["one"]
    assert caught.value.__notes__ == ["could not undo: two: broken"]


def test_success_undoes_nothing() -> None:
    undone: list[str] = []
    with Journal() as journal:
        assert journal.change("one", lambda: 7, lambda: undone.append("one")) == 7
    assert undone == []


def test_attempts_continue_after_a_failure() -> None:
    journal, done = Journal(), []
    journal.attempt("delete one", fail)
    journal.attempt("delete two", lambda: done.append("two"))
    assert done == ["two"]
    assert [str(failure) for failure in journal.failures] == ["broken"]


def test_watcher_is_entered_for_every_change_and_attempt() -> None:
    seen: list[str] = []

    @contextmanager
    def watcher(what: str) -> Iterator[None]:
        seen.append(what)
        yield

    journal = Journal()
    with watching(watcher):
        journal.change("one", lambda: None)
        journal.attempt("two", lambda: None)
    journal.change("three", lambda: None)
    assert seen == ["one", "two"]
