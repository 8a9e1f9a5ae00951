"""The owner index always matches the store, regardless of which program changes the store and in which order."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pycni_plugins.host_local.allocator import ChosenAddress
from pycni_plugins.host_local.attachment_id import AttachmentId
from pycni_plugins.host_local.owner_index import _read_files, _read_in_two_processes
from pycni_plugins.host_local.ranges import Range, RangeSet
from pycni_plugins.host_local.store import AddressStore

SET = RangeSet((Range.parse("10.1.0.0/28"),))
HOLDERS = st.builds(AttachmentId, st.sampled_from(["c1", "c2"]), st.sampled_from(["eth0", "net1", ""]))
ADDRESSES = st.sampled_from([address for address, _ in SET.candidates()])


def test_reading_in_two_processes_gives_the_same_records(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"10.1.0.{number}").write_bytes(f"c{number % 90}\r\neth0".encode())
    (tmp_path / "10.1.0.200").write_text("a printer")
    (tmp_path / "10.1.0.201").touch()
    (tmp_path / "10.1.0.202").write_bytes(b"c1\r\neth0\t10.1.0.1\0")
    (tmp_path / "10.1.0.203").mkdir()
    names = [path.name for path in tmp_path.iterdir()]
    directory = os.open(tmp_path, os.O_RDONLY)
    sequential = _read_files(directory, names, 16)
    assert _read_in_two_processes(directory, names, 16) == sequential
    os.close(directory)
    records = [record for bucket in sequential for record in bucket.split(b"\0") if record]
    assert len(records) == 201
    assert b"c1\r\neth0\t10.1.0.91" in records


def test_files_are_read_by_one_process_if_the_other_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "10.1.0.1").write_bytes(b"c1\r\neth0")
    (tmp_path / "10.1.0.2").write_bytes(b"c2\r\neth0")
    directory, parent = os.open(tmp_path, os.O_RDONLY), os.getpid()

    def read(*arguments: Any) -> list[bytes]:
        if os.getpid() != parent:
            raise MemoryError
        return _read_files(*arguments)

    monkeypatch.setattr("pycni_plugins.host_local.owner_index._read_files", read)
    buckets = _read_in_two_processes(directory, ["10.1.0.1", "10.1.0.2"], 1)
    assert buckets == [b"\0c1\r\neth0\t10.1.0.1\0c2\r\neth0\t10.1.0.2"]
    os.close(directory)


class SharedStore(RuleBasedStateMachine):
    """One store changed by pycni and by a program that does not update the owner index."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store = AddressStore.ensure(self.directory.name, "mynet")
        self.path = Path(self.store.path)

    def teardown(self) -> None:
        self.store.__exit__()
        self.directory.cleanup()

    @rule(holder=HOLDERS.filter(lambda holder: bool(holder.ifname)), address=ADDRESSES)
    def pycni_reserves(self, holder: AttachmentId, address: object) -> None:
        with self.store.prepare_reservation(holder) as reservation, self.store.locked() as allocations:
            taken = (self.path / str(address)).exists()
            assert (str(address) in allocations) == taken
            if taken:
                with pytest.raises(FileExistsError):
                    allocations.reserve([ChosenAddress(0, address, SET.ranges[0])], reservation)
            else:
                allocations.reserve([ChosenAddress(0, address, SET.ranges[0])], reservation)

    @rule(holder=HOLDERS)
    def pycni_releases(self, holder: AttachmentId) -> None:
        expected = self.addresses_in_files(holder) or self.addresses_in_files(holder.legacy)
        with self.store.locked() as allocations:
            assert set(allocations.release(holder)) == expected

    @rule(holder=HOLDERS, only=ADDRESSES)
    def pycni_releases_one_address(self, holder: AttachmentId, only: object) -> None:
        with self.store.locked() as allocations:
            allocations.release(holder, only=[str(only)])

    @rule(valid=st.frozensets(HOLDERS))
    def pycni_collects_garbage(self, valid: frozenset[AttachmentId]) -> None:
        with self.store.locked() as allocations:
            allocations.collect(valid)
        assert {holder for holder in self.holders_in_files() if holder.ifname} <= valid

    @rule(holder=HOLDERS, address=ADDRESSES)
    def another_program_writes(self, holder: AttachmentId, address: object) -> None:
        if not (self.path / str(address)).exists():
            (self.path / str(address)).write_bytes(holder.content)

    @rule(address=ADDRESSES)
    def another_program_removes(self, address: object) -> None:
        (self.path / str(address)).unlink(missing_ok=True)

    @invariant()
    def cached_owners_match_the_store(self) -> None:
        for holder in (AttachmentId(id_, ifname) for id_ in ("c1", "c2") for ifname in ("eth0", "net1")):
            with self.store.locked() as allocations:
                assert set(allocations.addresses_of(holder)) == self.addresses_in_files(
                    holder
                ) | self.addresses_in_files(holder.legacy)

    def addresses_in_files(self, holder: AttachmentId) -> set[str]:
        return {file.name for file in self.path.glob("10.*") if file.read_bytes() == holder.content}

    def holders_in_files(self) -> set[AttachmentId]:
        holders = (AttachmentId.parse(file.read_bytes()) for file in self.path.glob("10.*"))
        return {holder for holder in holders if holder}


SharedStore.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSharedStore = SharedStore.TestCase
