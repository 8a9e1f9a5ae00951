"""Per-thread cache of sockets and descriptors in the server's own network namespace, reused between calls."""

import threading
from collections.abc import Callable
from typing import Any, Protocol


class Closable(Protocol):
    """A resource that is opened in a namespace."""

    def close(self) -> None:
        """Close it."""


Factory = Callable[..., Closable]  # its argument is the handle of the namespace


class _Cache(threading.local):
    identity: tuple[int, int] | None = None
    resources: dict[Factory, Any] | None = None


_cache = _Cache()


def enable(identity: tuple[int, int]) -> None:
    """Cache the resources of the namespace with this identity in this thread from now on."""
    _cache.identity, _cache.resources = identity, {}


def cached_at(identity: tuple[int, int]) -> dict[Factory, Any] | None:
    """Return this thread's cache for the namespace, by factory, for reading and adding; None if it has no cache."""
    return _cache.resources if identity == _cache.identity else None


def close_all() -> None:
    """Close the cached resources of this thread, before it ends."""
    resources = (_cache.resources or {}).values()
    _cache.identity, _cache.resources = None, None
    for resource in resources:
        resource.close()
