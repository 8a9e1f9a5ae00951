"""The cache of owners never lies, whoever changes the store in whatever order."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pycni_plugins.host_local.allocator import Choice
from pycni_plugins.host_local.holder import Holder
from pycni_plugins.host_local.ranges import Range, RangeSet
from pycni_plugins.host_local.store import Store

SET = RangeSet((Range.parse("10.1.0.0/28"),))
HOLDERS = st.builds(Holder, st.sampled_from(["c1", "c2"]), st.sampled_from(["eth0", "net1", ""]))
ADDRESSES = st.sampled_from([address for address, _ in SET.candidates()])


class SharedStore(RuleBasedStateMachine):
    """We, and somebody who writes and removes files without telling anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.store = Store.ensure(self.home.name, "mynet")
        self.path = Path(self.store.path)

    def teardown(self) -> None:
        self.store.__exit__()
        self.home.cleanup()

    @rule(holder=HOLDERS.filter(lambda holder: bool(holder.ifname)), address=ADDRESSES)
    def we_reserve(self, holder: Holder, address: object) -> None:
        with self.store.claim(holder) as claim, self.store.locked() as allocations:
            taken = (self.path / str(address)).exists()
            assert (str(address) in allocations) == taken
            if taken:
                with pytest.raises(FileExistsError):
                    allocations.reserve([Choice(0, address, SET.ranges[0])], claim)
            else:
                allocations.reserve([Choice(0, address, SET.ranges[0])], claim)

    @rule(holder=HOLDERS)
    def we_release(self, holder: Holder) -> None:
        expected = self.truth(holder) or self.truth(holder.legacy)
        with self.store.locked() as allocations:
            assert set(allocations.release(holder)) == expected

    @rule(holder=HOLDERS, only=ADDRESSES)
    def we_take_back(self, holder: Holder, only: object) -> None:
        with self.store.locked() as allocations:
            allocations.release(holder, only=[str(only)])

    @rule(valid=st.frozensets(HOLDERS))
    def we_collect(self, valid: frozenset[Holder]) -> None:
        with self.store.locked() as allocations:
            allocations.collect(valid)
        assert {holder for holder in self.all() if holder.ifname} <= valid

    @rule(holder=HOLDERS, address=ADDRESSES)
    def somebody_writes(self, holder: Holder, address: object) -> None:
        if not (self.path / str(address)).exists():
            (self.path / str(address)).write_bytes(holder.content)

    @rule(address=ADDRESSES)
    def somebody_removes(self, address: object) -> None:
        (self.path / str(address)).unlink(missing_ok=True)

    @invariant()
    def what_we_believe_is_true(self) -> None:
        for holder in (Holder(id_, ifname) for id_ in ("c1", "c2") for ifname in ("eth0", "net1")):
            with self.store.locked() as allocations:
                assert set(allocations.held_by(holder)) == self.truth(holder) | self.truth(holder.legacy)

    def truth(self, holder: Holder) -> set[str]:
        return {file.name for file in self.path.glob("10.*") if file.read_bytes() == holder.content}

    def all(self) -> set[Holder]:
        holders = (Holder.parse(file.read_bytes()) for file in self.path.glob("10.*"))
        return {holder for holder in holders if holder}


SharedStore.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSharedStore = SharedStore.TestCase
