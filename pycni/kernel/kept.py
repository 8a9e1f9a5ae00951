"""What a thread of a process that stays keeps open, from call to call, of the namespace that it is at home in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pycni.kernel.door import Door


class _Closable(Protocol):
    def close(self) -> None:
        """Give it back."""


_Thing = TypeVar("_Thing", bound=_Closable)


class _Home(threading.local):
    identity: tuple[int, int] | None = None
    things: dict[Callable[[Door], Any], Any] | None = None


_home = _Home()


def keep_open(identity: tuple[int, int]) -> None:
    """Keep things of the namespace with this identity open from now on, for this thread."""
    _home.identity, _home.things = identity, {}


def let_go() -> None:
    """Close what this thread keeps open: it ends."""
    things = (_home.things or {}).values()
    _home.identity, _home.things = None, None
    for thing in things:
        thing.close()


@contextmanager
def opened(door: Door, make: Callable[[Door], _Thing]) -> Iterator[_Thing]:
    """What `make` opens in the namespace behind the door; it is closed at the end, unless it is kept."""
    things = _home.things
    if things is not None and door.identity == _home.identity:
        if make not in things:
            things[make] = make(door)
        yield things[make]
        return
    made = make(door)
    try:
        yield made
    finally:
        made.close()
