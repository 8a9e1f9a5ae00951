"""The journal: changes, undo and failures."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from pycni.kernel.journal import Journal, watching
from pycni.protocol.errors import CniError


def fail() -> None:
    raise OSError("broken")


def test_failure_undoes_changes_in_reverse_order() -> None:
    undone: list[str] = []
    with pytest.raises(OSError, match="broken"), Journal() as journal:
        journal.change("one", lambda: None, lambda: undone.append("one"))
        journal.change("shared", lambda: None)
        journal.change("two", lambda: None, lambda: undone.append("two"))
        journal.change("three", fail, lambda: undone.append("three"))
    assert undone == ["three", "two", "one"]


def test_failed_atomic_change_is_not_undone() -> None:
    undone: list[str] = []
    with pytest.raises(OSError, match="broken"), Journal() as journal:
        journal.change("one", lambda: None, lambda: undone.append("one"), atomic=True)
        journal.change("two", fail, lambda: undone.append("two"), atomic=True)
    assert undone == ["one"]


def test_outer_change_is_undone_if_the_error_of_an_inner_change_says_rolled_back() -> None:
    undone: list[str] = []

    def refuse() -> None:
        error = CniError("it exists")
        error.rolled_back = True
        raise error

    def do() -> None:
        journal.change("inner", refuse, lambda: undone.append("inner"))

    with pytest.raises(CniError, match="it exists"), Journal() as journal:
        journal.change("outer", do, lambda: undone.append("outer"))
    assert undone == ["outer"]


def test_failed_change_is_undone_if_its_error_is_caught_and_the_call_fails_later() -> None:
    """Undo happens at the end of the call, outside of the locks that the plugin held during the change."""
    undone: list[str] = []
    with pytest.raises(ValueError, match="later"), Journal() as journal:
        with suppress(OSError):
            journal.change("one", fail, lambda: undone.append("one"))
        raise ValueError("later")
    assert undone == ["one"]


def test_change_is_undone_if_the_watcher_fails_after_it() -> None:
    undone: list[str] = []

    @contextmanager
    def watcher(_what: str) -> Iterator[None]:
        yield
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"), watching(watcher), Journal() as journal:
        journal.change("one", lambda: None, lambda: undone.append("one"), atomic=True)
    assert undone == ["one"]


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
