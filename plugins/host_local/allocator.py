"""The choice of the addresses of an ADD from range sets and reservations, without side effects."""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from pycni.sdk import Address, Cidr, CniError, Code

from .ranges import Range, RangeSet


class ReservedAddresses(Container[str], Protocol):
    """The reserved addresses, as text."""

    def describe_owner(self, address: str) -> str:
        """Return a description of the owner of a reserved address."""


@dataclass(frozen=True, slots=True)
class ChosenAddress:
    """The address chosen from one range set."""

    set_index: int
    address: Address
    range: Range

    @property
    def cidr(self) -> Cidr:
        """Return the address with the prefix length of its subnet."""
        return self.range.cidr(self.address)

    @property
    def gateway(self) -> Address:
        """Return the gateway of the range."""
        return self.range.gateway


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """The container, the addresses that it requests, and those that its interface already has."""

    container_id: str
    addresses: Sequence[Address] = ()
    held: Collection[Address] = ()


def allocate(
    sets: Sequence[RangeSet],
    request: AllocationRequest,
    *,
    reserved: ReservedAddresses,
    last_reserved: Sequence[Address | None],
) -> tuple[ChosenAddress, ...]:
    """Return an address of every set: the first requested one that it contains, or the next free one.

    The next free address is the first one after the last reserved address. Raise CniError if a set has no free address,
    or if no set contains a requested address.
    """
    chosen, requested = [], list(dict.fromkeys(request.addresses))
    for i, set_ in enumerate(sets):
        try:
            address = next((address for address in requested if address in set_), None)
            if address is None:
                chosen.append(_next_free(i, set_, request, reserved, last_reserved[i]))
            else:
                requested.remove(address)
                chosen.append(_as_requested(i, set_, address, reserved))
        except CniError as error:
            error.msg = f"failed to allocate for range {i}: {error.msg}"
            raise
    if requested:
        raise CniError(
            f"failed to allocate all requested IPs: {' '.join(map(str, requested))}",
            code=Code.INVALID_NETWORK_CONFIG,
            details=f"each range set provides one address; the sets are {' and '.join(map(str, sets))}",
        )
    return tuple(chosen)


def find_free(
    set_: RangeSet, *, reserved: Container[str], last_reserved: Address | None = None
) -> tuple[Address, Range] | None:
    """Return the next free address of a set and its range; None if the set is exhausted."""
    return next((found for found in set_.candidates(after=last_reserved) if str(found[0]) not in reserved), None)


class ExhaustedError(CniError):
    """A range set has no free address."""

    def __init__(self, set_: RangeSet) -> None:
        super().__init__(
            f"no IP addresses available in range set: {set_}",
            code=Code.TRY_AGAIN_LATER,
            details=f"all {set_.size} addresses are reserved: delete containers, run GC to free stale reservations, "
            "or extend the range",
        )


def _next_free(
    i: int, set_: RangeSet, request: AllocationRequest, reserved: ReservedAddresses, last_reserved: Address | None
) -> ChosenAddress:
    for address in request.held:
        if address in set_:
            raise CniError(
                f"{address} has been allocated to {request.container_id}, duplicate allocation is not allowed",
                details="the interface was added before: delete it first",
            )
    found = find_free(set_, reserved=reserved, last_reserved=last_reserved)
    if found is None:
        raise ExhaustedError(set_)
    return ChosenAddress(i, *found)


def _as_requested(i: int, set_: RangeSet, address: Address, reserved: ReservedAddresses) -> ChosenAddress:
    range_ = set_.find_range(address)
    assert range_ is not None, "allocate() only passes addresses of the set"
    if address == range_.gateway:
        raise CniError(
            f"requested ip {address} is subnet's gateway",
            code=Code.INVALID_NETWORK_CONFIG,
            details=f"request another address of {range_}",
        )
    if str(address) in reserved:
        raise CniError(
            f"requested IP address {address} is not available in range set {set_}",
            code=Code.TRY_AGAIN_LATER,
            details=f"it is reserved for {reserved.describe_owner(str(address))}",
        )
    return ChosenAddress(i, address, range_)
