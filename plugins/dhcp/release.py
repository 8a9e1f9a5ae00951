"""Release of several leases: for GC, and for DEL and GC when no lease daemon runs."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pycni.sdk import CniError, Code, Owner

from .binding import Binding
from .lease_store import LeaseStore
from .timing import Timing

T = TypeVar("T")


def for_each(items: Iterable[T], do: Callable[[T], None]) -> None:
    """Call `do` for all items, also after a failure. Then raise the first CniError."""
    failures = []
    for item in items:
        try:
            do(item)
        except CniError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def release_without_daemon(store: LeaseStore, is_wanted: Callable[[Owner], bool]) -> None:
    """Release the stored leases of the wanted attachments.

    Raise CniError, code 11, if a lease daemon uses the store although it does not listen at its socket.
    """
    with store.locked() as acquired:
        if not acquired:
            raise CniError(
                f"the DHCP lease daemon that uses {store.directory} does not listen at its socket",
                code=Code.TRY_AGAIN_LATER,
                details="restart it: leases survive a restart",
            )
        wanted = [record for record in store.records() if is_wanted(record.client.owner)]
        for_each(wanted, lambda record: Binding(record, store, Timing()).release())
