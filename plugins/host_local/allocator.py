"""Which addresses an ADD gets: a decision from range sets, wishes and what is taken, without any effect."""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from pycni.sdk import Address, Cidr, CniError, Code

from .ranges import Range, RangeSet


class Taken(Container[str], Protocol):
    """What the decision must know of the addresses that somebody holds, by their text."""

    def holder(self, address: str) -> str:
        """By whom, in words."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One address for one range set."""

    set_index: int
    address: Address
    range: Range

    @property
    def cidr(self) -> Cidr:
        """The address with the prefix length of its subnet."""
        return self.range.cidr(self.address)

    @property
    def gateway(self) -> Address:
        """The gateway of its range."""
        return self.range.gateway


@dataclass(frozen=True, slots=True)
class Demand:
    """Who asks: the container, the addresses it wishes for, and those it holds already."""

    container_id: str
    requested: Sequence[Address] = ()
    held: Collection[Address] = ()


def allocate(
    sets: Sequence[RangeSet], demand: Demand, *, taken: Taken, last_reserved: Sequence[Address | None]
) -> tuple[Choice, ...]:
    """One address of every set: the first wish that lies in it, else the next free one after the last reserved.

    Raises CniError when a set has none to give, or when a wish is left over.
    """
    choices, wishes = [], list(dict.fromkeys(demand.requested))
    for i, set_ in enumerate(sets):
        try:
            wish = next((address for address in wishes if address in set_), None)
            if wish is None:
                choices.append(_next_free(i, set_, demand, taken, last_reserved[i]))
            else:
                wishes.remove(wish)
                choices.append(_as_requested(i, set_, wish, taken))
        except CniError as error:
            error.msg = f"failed to allocate for range {i}: {error.msg}"
            raise
    if wishes:
        raise CniError(
            f"failed to allocate all requested IPs: {' '.join(map(str, wishes))}",
            code=Code.INVALID_NETWORK_CONFIG,
            details=f"every range set gives one address; the sets are {' and '.join(map(str, sets))}",
        )
    return tuple(choices)


def find_free(
    set_: RangeSet, *, taken: Container[str], last_reserved: Address | None = None
) -> tuple[Address, Range] | None:
    """The next free address of a set and the range it is of."""
    return next((found for found in set_.candidates(after=last_reserved) if str(found[0]) not in taken), None)


class ExhaustedError(CniError):
    """A set has no free address."""

    def __init__(self, set_: RangeSet) -> None:
        super().__init__(
            f"no IP addresses available in range set: {set_}",
            code=Code.TRY_AGAIN_LATER,
            details=f"all {set_.size} are taken: delete containers, let GC free what dead ones left, widen the range",
        )


def _next_free(i: int, set_: RangeSet, demand: Demand, taken: Taken, last_reserved: Address | None) -> Choice:
    for address in demand.held:
        if address in set_:
            raise CniError(
                f"{address} has been allocated to {demand.container_id}, duplicate allocation is not allowed",
                details="the interface was added before: delete it first",
            )
    found = find_free(set_, taken=taken, last_reserved=last_reserved)
    if found is None:
        raise ExhaustedError(set_)
    return Choice(i, *found)


def _as_requested(i: int, set_: RangeSet, address: Address, taken: Taken) -> Choice:
    range_ = set_.find_range(address)
    assert range_ is not None, "the caller looked"
    if address == range_.gateway:
        raise CniError(
            f"requested ip {address} is subnet's gateway",
            code=Code.INVALID_NETWORK_CONFIG,
            details=f"request another address of {range_}",
        )
    if str(address) in taken:
        raise CniError(
            f"requested IP address {address} is not available in range set {set_}",
            code=Code.TRY_AGAIN_LATER,
            details=f"it is held by {taken.holder(str(address))}",
        )
    return Choice(i, address, range_)
