"""Ranges: validation, defaults, and the order of allocation (docs/reference/plugins.md#host-local)."""

from ipaddress import ip_address
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycni_plugins.host_local.ranges import Range, RangeSet, check_sets, has_two_of_a_family


def pool(*ranges: tuple[str, ...]) -> RangeSet:
    return RangeSet(tuple(Range.parse(*range_) for range_ in ranges))


def allocation_order(set_: RangeSet, after: str | None = None) -> list[str]:
    return [str(address) for address, _ in set_.candidates(after=ip_address(after) if after else None)]


@pytest.mark.parametrize(
    ("given", "start", "end", "gateway"),
    [
        (("10.1.0.0/24",), "10.1.0.1", "10.1.0.254", "10.1.0.1"),
        (("10.1.0.0/30",), "10.1.0.1", "10.1.0.2", "10.1.0.1"),
        (("fd00:1::/64",), "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::1"),
        (("fd00:1::/126",), "fd00:1::1", "fd00:1::3", "fd00:1::1"),
        (("10.1.0.0/24", "10.1.0.10", "10.1.0.20", "10.1.0.254"), "10.1.0.10", "10.1.0.20", "10.1.0.254"),
        (("10.1.0.0/24", "", "", "192.168.0.1"), "10.1.0.1", "10.1.0.254", "192.168.0.1"),
        (("10.1.0.0/24", "10.1.0.0", "10.1.0.255"), "10.1.0.0", "10.1.0.255", "10.1.0.1"),
        (("10.1.0.0/024", "", "::ffff:10.1.0.9"), "10.1.0.1", "10.1.0.9", "10.1.0.1"),
    ],
)
def test_omitted_members_get_their_defaults(given: tuple[str, ...], start: str, end: str, gateway: str) -> None:
    range_ = Range.parse(*given)
    assert (str(range_.start), str(range_.end), str(range_.gateway)) == (start, end, gateway)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("10.1.0.0/31",), "Network 10.1.0.0/31 too small to allocate from: the prefix is at most /30"),
        (("10.1.0.1/32",), "Network 10.1.0.1/32 too small to allocate from: the prefix is at most /30"),
        (("fd00::/127",), "Network fd00::/127 too small to allocate from: the prefix is at most /126"),
        (
            ("10.1.0.5/24",),
            (
                "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.0.0:"
                " write 10.1.0.0/24 instead of 10.1.0.5/24"
            ),
        ),
        (
            ("::ffff:10.1.0.0/120",),
            "IPNet IP and Mask version mismatch: write the subnet ::ffff:10.1.0.0/120 as 10.1.0.0/24",
        ),
        (("10.1.0.0",), "invalid CIDR address: 10.1.0.0"),
        (("",), "the range has no subnet"),
        (("10.1.0.0/24", "bogus"), "invalid IP address: bogus (rangeStart)"),
        (("10.1.0.0/24", "", "", "bogus"), "invalid IP address: bogus (gateway)"),
        (("10.1.0.0/24", "10.2.0.1"), "RangeStart 10.2.0.1 not in network 10.1.0.0/24"),
        (("10.1.0.0/24", "fd00::1"), "RangeStart fd00::1 not in network 10.1.0.0/24"),
        (("10.1.0.0/24", "", "10.2.0.1"), "RangeEnd 10.2.0.1 not in network 10.1.0.0/24"),
        (
            ("10.1.0.0/24", "10.1.0.9", "10.1.0.8"),
            "RangeStart 10.1.0.9 is after rangeEnd 10.1.0.8: the range in network 10.1.0.0/24 is empty",
        ),
    ],
)
def test_error_for_an_invalid_range_names_it_and_gives_a_remedy(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Range.parse(*given)
    assert str(caught.value) == message


def test_range_set_accepts_only_disjoint_ranges_of_one_family() -> None:
    with pytest.raises(ValueError, match="empty range set"):
        pool()
    with pytest.raises(ValueError, match="mixed address families"):
        pool(("10.1.0.0/24",), ("fd00::/64",))
    with pytest.raises(ValueError, match=r"subnets 10\.1\.0\.1-10\.1\.0\.254 and 10\.1\.0\.9-10\.1\.0\.10 overlap"):
        pool(("10.1.0.0/24",), ("10.1.0.0/24", "10.1.0.9", "10.1.0.10"))
    assert pool(("10.1.0.0/24", "", "10.1.0.9"), ("10.1.0.0/24", "10.1.0.10")).size == 8 + 245


def test_range_sets_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="no IP ranges specified"):
        check_sets([])
    apart, inside = pool(("10.2.0.0/24",)), pool(("10.1.0.128/25",))
    with pytest.raises(ValueError, match="range set 0 overlaps with 2"):
        check_sets([pool(("10.1.0.0/24",)), apart, inside])
    check_sets([apart, inside, pool(("fd00::/64",))])


def test_two_range_sets_of_one_family_are_detected() -> None:
    """CNI 0.2.0 and older return at most one address per family."""
    assert has_two_of_a_family([pool(("10.1.0.0/24",)), pool(("10.2.0.0/24",))])
    assert not has_two_of_a_family([pool(("10.1.0.0/24",)), pool(("fd00::/64",))])


@pytest.mark.parametrize(
    ("set_", "after", "expected"),
    [
        (pool(("10.1.0.0/29",)), None, "2 3 4 5 6"),
        (pool(("10.1.0.0/29",)), "10.1.0.4", "5 6 2 3 4"),
        (pool(("10.1.0.0/29",)), "10.1.0.6", "2 3 4 5 6"),
        (pool(("10.1.0.0/29",)), "10.9.9.9", "2 3 4 5 6"),
        (pool(("10.1.0.0/29",)), "fd00::4", "2 3 4 5 6"),
        (pool(("10.1.0.0/29", "", "", "10.1.0.4")), "10.1.0.3", "5 6 1 2 3"),
        (pool(("10.1.0.0/29", "10.1.0.0", "10.1.0.7")), "10.1.0.7", "0 2 3 4 5 6 7"),
        (pool(("10.1.0.0/30",), ("10.1.0.8/30",), ("10.1.0.16/29",)), "10.1.0.10", "18 19 20 21 22 2 10"),
        (pool(("10.1.0.0/30",), ("10.1.0.8/30",)), "10.1.0.2", "10 2"),
    ],
)
def test_candidates_start_after_the_last_reserved_address_and_wrap_around(
    set_: RangeSet, after: str | None, expected: str
) -> None:
    assert allocation_order(set_, after) == [f"10.1.0.{host}" for host in expected.split()]


def test_candidates_of_a_64_bit_prefix_are_generated_lazily() -> None:
    set_ = pool(("fd00::/64",))
    assert [str(a) for a, _ in islice(set_.candidates(after=ip_address("fd00::ff")), 2)] == ["fd00::100", "fd00::101"]
    assert set_.size == 2**64 - 2  # without the network address and the gateway


@st.composite
def small_pools(draw: st.DrawFn) -> RangeSet:
    """Draw a range set of one to four ranges of 10.1.0.0/24, each with a gateway anywhere in it."""
    cuts = sorted(draw(st.sets(st.integers(0, 255), min_size=2, max_size=8)))
    bounds = list(zip(cuts[::2], cuts[1::2], strict=False))
    ranges = [
        Range.parse("10.1.0.0/24", f"10.1.0.{a}", f"10.1.0.{b - (b > a)}", f"10.1.0.{draw(st.integers(0, 255))}")
        for a, b in bounds
    ]
    return RangeSet(tuple(draw(st.permutations(ranges))))


@settings(deadline=None)
@given(small_pools(), st.integers(0, 255))
def test_every_allocatable_address_is_a_candidate_exactly_once(set_: RangeSet, last: int) -> None:
    after = ip_address(f"10.1.0.{last}")
    candidates = list(set_.candidates(after=after))
    addresses = [address for address, _ in candidates]
    expected = {
        address
        for range_ in set_.ranges
        for address in map(ip_address, range(int(range_.start), int(range_.end) + 1))
        if address != range_.gateway
    }
    assert len(addresses) == len(expected) == set_.size
    assert set(addresses) == expected
    assert all(address in range_ and range_ in set_.ranges for address, range_ in candidates)
    if after in expected:
        assert addresses[-1] == after, "the last reserved address is the last candidate"
