"""Address allocation: which addresses an ADD gets (docs/reference/plugins.md#host-local)."""

from collections.abc import Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycni_plugins.host_local.allocator import AllocationRequest, ChosenAddress, allocate, find_free
from pycni_plugins.host_local.ranges import Range, RangeSet

from pycni.protocol.errors import CniError, Code

V4 = RangeSet((Range.parse("10.1.0.0/29"),))
V6 = RangeSet((Range.parse("fd00:1::/64"),))


class Reserved(dict[str, str]):
    """Reserved addresses and their holders, in place of the store."""

    def describe_owner(self, address: str) -> str:
        return self[address]


def allocated(
    *sets: RangeSet,
    requested: str = "",
    held: str = "",
    taken: Mapping[str, str] | None = None,
    last: tuple[str | None, ...] = (),
) -> list[str]:
    request = AllocationRequest(
        "c1", [ip_address(text) for text in requested.split()], [ip_address(text) for text in held.split()]
    )
    last_reserved = [ip_address(text) if text else None for text in last] or [None] * len(sets)
    choices = allocate(sets, request, reserved=Reserved(taken or {}), last_reserved=last_reserved)
    return [str(choice.cidr) for choice in choices]


def test_each_range_set_yields_one_address_with_prefix_and_gateway_of_its_range() -> None:
    v4 = RangeSet((Range.parse("10.1.0.0/30"), Range.parse("10.2.0.0/24", "10.2.0.9", "", "10.2.0.254")))
    choices = allocate(
        (v4, V6),
        AllocationRequest("c1"),
        reserved=Reserved({"10.1.0.2": "c0"}),
        last_reserved=[None, ip_address("fd00:1::7")],
    )
    assert [(str(c.cidr), str(c.gateway), c.set_index) for c in choices] == [
        ("10.2.0.9/24", "10.2.0.254", 0),
        ("fd00:1::8/64", "fd00:1::1", 1),
    ]


def test_requested_address_comes_from_the_first_range_set_that_contains_it() -> None:
    assert allocated(V4, V6, requested="fd00:1::99") == ["10.1.0.2/29", "fd00:1::99/64"]
    assert allocated(V4, V6, requested="fd00:1::99 10.1.0.5 10.1.0.5") == ["10.1.0.5/29", "fd00:1::99/64"]


def error_of(*sets: RangeSet, **arguments: object) -> CniError:
    with pytest.raises(CniError) as caught:
        allocated(*sets, **arguments)
    return caught.value


def test_requested_address_outside_all_range_sets_is_refused() -> None:
    error = error_of(V4, V6, requested="10.9.0.1 10.1.0.3 10.1.0.4")
    assert error.msg == "failed to allocate all requested IPs: 10.9.0.1 10.1.0.4"
    assert "10.1.0.1-10.1.0.6 and fd00:1::1-" in error.details


def test_gateway_address_cannot_be_requested() -> None:
    error = error_of(V6, V4, requested="10.1.0.1")
    assert error.msg == "failed to allocate for range 1: requested ip 10.1.0.1 is subnet's gateway"


def test_requested_address_in_use_is_refused_and_the_error_names_its_holder() -> None:
    error = error_of(V4, requested="10.1.0.3", taken={"10.1.0.3": "container c7, interface eth0"})
    assert error.msg == (
        "failed to allocate for range 0: requested IP address 10.1.0.3 is not available in range set 10.1.0.1-10.1.0.6"
    )
    assert error.details == "it is reserved for container c7, interface eth0"
    assert error.code == Code.TRY_AGAIN_LATER


def test_second_address_from_the_same_range_set_is_refused() -> None:
    error = error_of(V4, V6, held="fd00:1::4")
    assert error.msg == (
        "failed to allocate for range 1: fd00:1::4 has been allocated to c1, duplicate allocation is not allowed"
    )
    assert allocated(V4, held="10.7.0.1") == ["10.1.0.2/29"], "an address outside the range set does not count"


def test_error_for_an_exhausted_range_set_gives_its_size_and_a_remedy() -> None:
    two = RangeSet(
        (Range.parse("10.1.0.0/29", "10.1.0.4", "10.1.0.5"), Range.parse("10.2.0.0/29", "10.2.0.2", "10.2.0.3"))
    )
    error = error_of(two, taken=dict.fromkeys(["10.1.0.4", "10.1.0.5", "10.2.0.2", "10.2.0.3"], ""))
    assert error.msg == (
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.0.4-10.1.0.5,10.2.0.2-10.2.0.3"
    )
    assert error.details.startswith("all 4 addresses are reserved")
    assert error.code == Code.TRY_AGAIN_LATER


@settings(deadline=None)
@given(st.lists(st.sampled_from(["add", "delete"]), max_size=60), st.data())
def test_no_address_is_allocated_twice(events: list[str], data: st.DataObject) -> None:
    """Containers are added and deleted in any order. Allocation fails only when no address is free."""
    taken, last, serial = Reserved(), None, 0
    for event in events:
        if event == "delete" and taken:
            del taken[data.draw(st.sampled_from(sorted(taken)))]
            continue
        serial += 1
        if len(taken) == V4.size:
            assert find_free(V4, reserved=taken, last_reserved=last) is None
            continue
        (choice,) = allocate([V4], AllocationRequest(f"c{serial}"), reserved=taken, last_reserved=[last])
        assert isinstance(choice, ChosenAddress)
        assert str(choice.address) not in taken
        assert choice.address in V4
        taken[str(choice.address)], last = f"c{serial}", choice.address
