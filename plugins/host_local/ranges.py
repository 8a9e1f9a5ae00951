"""Address ranges and range sets.

A range is a part of one subnet. A range set is a pool of ranges of one family; ADD allocates one address per set.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from pycni.sdk import Address, Cidr, parse_cidr, parse_ip, to_cidr


@dataclass(frozen=True, slots=True)
class Range:
    """The addresses of one subnet from `start` to `end`, both included. The gateway is never allocated."""

    start: Address
    end: Address
    gateway: Address
    prefix_length: int

    @classmethod
    def parse(cls, subnet: str, start: str = "", end: str = "", gateway: str = "") -> Self:
        """Parse a range of the configuration. Empty arguments have defaults. Raise ValueError.

        The gateway may be outside the subnet. Network and broadcast address are allocated only if `start` or `end`
        is that address.
        """
        net = _parse_subnet(subnet)
        network, broadcast = net.network.network_address, net.network.broadcast_address
        first = network + 1
        last = broadcast - 1 if net.version == 4 else broadcast  # IPv6 has no broadcast address
        range_ = cls(
            start=_parse_bound("rangeStart", start, net) if start else first,
            end=_parse_bound("rangeEnd", end, net) if end else last,
            gateway=_parse_named("gateway", gateway) if gateway else first,
            prefix_length=net.network.prefixlen,
        )
        if int(range_.start) > int(range_.end):
            raise ValueError(
                f"RangeStart {range_.start} is after rangeEnd {range_.end}: the range in network {net} is empty"
            )
        return range_

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def __contains__(self, address: Address) -> bool:
        return address.version == self.start.version and int(self.start) <= int(address) <= int(self.end)

    @property
    def size(self) -> int:
        """Return the number of addresses that can be allocated."""
        return int(self.end) - int(self.start) + 1 - (self.gateway in self)

    def overlaps(self, other: Self) -> bool:
        """Return whether the ranges have an address in common."""
        return other.start in self or self.start in other

    def addresses(self, first: int | None = None, last: int | None = None) -> Iterator[Address]:
        """Return the addresses that can be allocated, in order, from `first` to `last`. Default: the whole range."""
        address_type, gateway = type(self.start), int(self.gateway)
        begin = int(self.start) if first is None else first
        end = int(self.end) if last is None else last
        return (address_type(number) for number in range(begin, end + 1) if number != gateway)

    def cidr(self, address: Address) -> Cidr:
        """Return the address with the prefix length of the subnet."""
        return to_cidr(address, self.prefix_length)


@dataclass(frozen=True, slots=True)
class RangeSet:
    """A pool of addresses of one family, which consists of ranges that do not overlap."""

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("empty range set: add a range with a subnet")
        if len({range_.start.version for range_ in self.ranges}) > 1:
            raise ValueError("mixed address families: use separate sets for IPv4 and IPv6 ranges")
        for i, one in enumerate(self.ranges):
            for other in self.ranges[i + 1 :]:
                if one.overlaps(other):
                    raise ValueError(f"subnets {one} and {other} overlap: an address can belong to one range only")

    def __str__(self) -> str:
        return ",".join(map(str, self.ranges))

    def __contains__(self, address: Address) -> bool:
        return self.find_range(address) is not None

    @property
    def version(self) -> int:
        """Return the IP version, 4 or 6."""
        return self.ranges[0].start.version

    @property
    def size(self) -> int:
        """Return the number of addresses that can be allocated."""
        return sum(range_.size for range_ in self.ranges)

    def find_range(self, address: Address) -> Range | None:
        """Return the range that contains the address, or None."""
        return next((range_ for range_ in self.ranges if address in range_), None)

    def overlaps(self, other: Self) -> bool:
        """Return whether the sets have an address in common."""
        return any(mine.overlaps(theirs) for mine in self.ranges for theirs in other.ranges)

    def candidates(self, after: Address | None = None) -> Iterator[tuple[Address, Range]]:
        """Yield each address that can be allocated: from the one after `after`, with wrap-around, to `after` itself.

        Without `after`, or if no range of the set contains it, begin with the first range.
        """
        current = None if after is None else self.find_range(after)
        if after is None or current is None:
            for range_ in self.ranges:
                yield from ((address, range_) for address in range_.addresses())
            return
        i = self.ranges.index(current)
        yield from ((address, current) for address in current.addresses(first=int(after) + 1))
        for range_ in (*self.ranges[i + 1 :], *self.ranges[:i]):
            yield from ((address, range_) for address in range_.addresses())
        yield from ((address, current) for address in current.addresses(last=int(after)))


def check_sets(sets: Sequence[RangeSet]) -> None:
    """Raise ValueError if there is no set, or if two sets have an address in common."""
    if not sets:
        raise ValueError("no IP ranges specified: add a subnet or ranges to ipam")
    if not _any_overlap(sets):
        return
    for i, one in enumerate(sets):
        for j, other in enumerate(sets[i + 1 :], i + 1):
            if one.overlaps(other):
                raise ValueError(
                    f"range set {i} overlaps with {j}: {one} and {other} share addresses; put both ranges into one set"
                )


def _any_overlap(sets: Iterable[RangeSet]) -> bool:
    """Return whether two ranges overlap. Comparing all pairs of 1000 takes seconds; in order, neighbours suffice."""
    ranges = sorted(
        (range_.start.version, int(range_.start), int(range_.end)) for set_ in sets for range_ in set_.ranges
    )
    return any(
        version == next_version and end >= next_start
        for (version, _, end), (next_version, next_start, _) in pairwise(ranges)
    )


def has_two_of_a_family(sets: Iterable[RangeSet]) -> bool:
    """Return whether two sets have the same family, whose results versions before 0.3.0 cannot express."""
    versions = [set_.version for set_ in sets]
    return len(versions) != len(set(versions))


def _parse_subnet(text: str) -> Cidr:
    if not text:
        raise ValueError("the range has no subnet")
    subnet = parse_cidr(text)
    if subnet.version == 4 and ":" in text:
        raise ValueError(f"IPNet IP and Mask version mismatch: write the subnet {text} as {subnet.network}")
    if subnet.network.prefixlen > subnet.max_prefixlen - 2:
        raise ValueError(
            f"Network {subnet} too small to allocate from: the prefix is at most /{subnet.max_prefixlen - 2}"
        )
    if subnet.ip != subnet.network.network_address:
        raise ValueError(
            f"Network has host bits set. For a subnet mask of length {subnet.network.prefixlen} the network address is"
            f" {subnet.network.network_address}: write {subnet.network} instead of {text}"
        )
    return subnet


def _parse_bound(name: str, text: str, subnet: Cidr) -> Address:
    address = _parse_named(name, text)
    if address.version != subnet.version or address not in subnet.network:
        raise ValueError(f"{name[0].upper()}{name[1:]} {address} not in network {subnet}")
    return address


def _parse_named(name: str, text: str) -> Address:
    try:
        return parse_ip(text)
    except ValueError as error:
        raise ValueError(f"{error} ({name})") from None
