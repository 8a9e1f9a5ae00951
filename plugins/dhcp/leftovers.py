"""Leases to be given back in numbers: of attachments that are gone, or of a keeper that runs no more."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pycni.sdk import CniError, Code, Owner

from .binding import Binding
from .store import Store
from .timing import Timing

T = TypeVar("T")


def for_each(items: Iterable[T], do: Callable[[T], None]) -> None:
    """Do it with all of them, whatever fails. Raises the first CniError then."""
    failures = []
    for item in items:
        try:
            do(item)
        except CniError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def release_without_keeper(store: Store, is_wanted: Callable[[Owner], bool]) -> None:
    """Give back what a keeper that runs no more has left of these attachments. Raises CniError."""
    with store.locked() as free:
        if not free:
            raise CniError(
                f"the DHCP keeper with the leases of {store.directory} does not listen",
                code=Code.TRY_AGAIN_LATER,
                details="start it anew: leases survive that",
            )
        wanted = [record for record in store.records() if is_wanted(record.client.owner)]
        for_each(wanted, lambda record: Binding(record, store, Timing()).release())
