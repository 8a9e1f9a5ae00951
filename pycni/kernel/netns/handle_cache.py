"""What a thread of a process that stays keeps open, from call to call, of the namespace that it is at home in."""

import threading
from collections.abc import Callable
from typing import Any, Protocol


class Closable(Protocol):
    """What is opened in a namespace."""

    def close(self) -> None:
        """Give it back."""


Make = Callable[..., Closable]  # of the door to the namespace


class _Home(threading.local):
    identity: tuple[int, int] | None = None
    things: dict[Make, Any] | None = None


_home = _Home()


def enable(identity: tuple[int, int]) -> None:
    """Keep things of the namespace with this identity open from now on, for this thread."""
    _home.identity, _home.things = identity, {}


def cached_at(identity: tuple[int, int]) -> dict[Make, Any] | None:
    """What this thread keeps open of the namespace, by what has made it, to be added to; None if it keeps nothing."""
    return _home.things if identity == _home.identity else None


def close_all() -> None:
    """Close what this thread keeps open: it ends."""
    things = (_home.things or {}).values()
    _home.identity, _home.things = None, None
    for thing in things:
        thing.close()
