"""The owner index: the addresses of each attachment, so that a call does not read all allocation files.

The allocation files are authoritative. The index, `<dataDir>/.<network>.owners`, is one file; the Go plugin ignores it.
A header is followed by buckets of equal size. A checksum of the container id selects the bucket, which contains a
record for each attachment: the content of its allocation files, and the addresses. A call reads and writes one bucket.

The header contains a seal: the modification time of the store's directory when the index last matched it, and the boot.
The Go plugin, or an administrator, changes that time by adding or removing a file. Then the seal does not match, and
the next call reads all allocation files and rewrites the index. A crash of the machine may lose a part of the index, so
a seal of another boot does not match either.
"""

import logging
import os
import time
from binascii import crc32
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property

from .attachment_id import SEPARATOR, AttachmentId

log = logging.getLogger(__name__)

_FORMAT, _HEADER_SIZE = "pycni host-local owners 1", 128
_BEFORE, _BEHIND, _EMPTY = b"\0", b"\t", b"\0"  # start of a record, separator of content and addresses, padding
_FEWEST_BUCKETS, _ENTRIES_PER_BUCKET = 16, 16  # of a new index; it is rewritten when a bucket is full
_BUCKET_STEP, _SMALLEST_BUCKET, _LARGEST_BUCKET = 256, 1024, 1 << 24  # bytes
_NO_SEAL = "-"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

Addresses = tuple[str, ...]


class OwnerIndex:
    """The index of one store. Use it under the store's lock, and close it.

    An index that cannot be written is never valid, so every call reads the files.
    """

    def __init__(self, path: str, store: int) -> None:
        self._path = path
        self._store = store  # file descriptor of the store's directory
        self._known: dict[bytes, Addresses] | None = None  # the content of the files, if this call has read them
        self._is_complete = True  # until a write fails
        self._count = self._size = 0  # number of buckets, and bytes per bucket
        self._seal = _NO_SEAL

    @cached_property
    def is_valid(self) -> bool:
        """Return whether the index matches the store."""
        return self._file >= 0 and self._seal == self._current_seal()

    @cached_property
    def _file(self) -> int:
        """Return the descriptor of the file; -1 if there is no valid index."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return -1
        with suppress(OSError, ValueError):
            header = os.pread(file, _HEADER_SIZE, 0).decode("ascii")
            count, size, seal = header.removeprefix(_FORMAT).split()
            if header.startswith(_FORMAT) and int(count) > 0 and 0 < int(size) <= _LARGEST_BUCKET:
                self._count, self._size, self._seal = int(count), int(size), seal
                return file
        os.close(file)
        return -1

    def close(self) -> None:
        """Close the file."""
        if self.__dict__.get("_file", -1) >= 0:
            os.close(self._file)

    def find(self, owner: AttachmentId) -> Addresses:
        """Return the addresses of exactly this attachment id; all of them if the index is valid."""
        if self._known is not None:
            return self._known.get(owner.content, ())
        bucket = self._read(self._number(owner.content))
        start, end = _record(bucket, owner.content)
        return _addresses(bucket[start:end])

    def put(self, owner: AttachmentId, addresses: Sequence[str]) -> None:
        """Record the addresses of the attachment."""
        content = owner.content
        if self._known is not None:
            self._known[content] = tuple(addresses)
        if self._file < 0:
            return
        number = self._number(content)
        bucket = self._read(number)
        start, end = _record(bucket, content)
        changed = (bucket[:start] + bucket[end:]).rstrip(_EMPTY) + _encode(content, addresses)
        if len(changed) <= self._size:
            self._write(changed.ljust(self._size, _EMPTY), _HEADER_SIZE + number * self._size)
        else:
            self.replace(self._all() | {content: tuple(addresses)})

    def replace(self, known: Mapping[bytes, Addresses]) -> None:
        """Write the index. `known` are the addresses by the content of their allocation files."""
        self._known = dict(known)
        self.is_valid = True
        self._count = max(_FEWEST_BUCKETS, len(self._known) // _ENTRIES_PER_BUCKET)
        buckets, count = [b""] * self._count, self._count
        for content, addresses in known.items():  # inlined _number() and _encode(), twice as fast
            number = crc32(content.partition(SEPARATOR)[0]) % count
            buckets[number] += _BEFORE + content + _BEHIND + ",".join(addresses).encode()
        room = max(map(len, buckets)) * 5 // 4
        self._size = max(_SMALLEST_BUCKET, -(-room // _BUCKET_STEP) * _BUCKET_STEP)
        data = self._header(_NO_SEAL) + b"".join(bucket.ljust(self._size, _EMPTY) for bucket in buckets)
        if self._file < 0:
            self._file = self._create()
        self._write(data, 0)

    def seal(self) -> None:
        """Mark the index as valid for the current content of the store.

        The modification time of the store's directory is set with full resolution, so that the next change has a
        different time, even in the same tick of the kernel's clock.
        """
        if not self._is_complete or self._file < 0:
            return
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._store, ns=(now, now))
        if os.fstat(self._store).st_mtime_ns == now:  # fails on filesystems with a coarser resolution
            self._write(self._header(self._current_seal()), 0)

    def _current_seal(self) -> str:
        return f"{os.fstat(self._store).st_mtime_ns}@{_boot_id()}"

    def _header(self, seal: str) -> bytes:
        return f"{_FORMAT} {self._count} {self._size} {seal}".encode().ljust(_HEADER_SIZE)

    def _number(self, content: bytes) -> int:
        """Return the number of the bucket, which is the same for all interfaces of a container."""
        return crc32(content.partition(SEPARATOR)[0]) % self._count

    def _all(self) -> dict[bytes, Addresses]:
        """Return all records."""
        if self._known is not None:
            return self._known
        records = os.pread(self._file, self._count * self._size, _HEADER_SIZE).split(_BEFORE)
        parts = (record.rpartition(_BEHIND) for record in records if record)
        return {content: _addresses(addresses) for content, _, addresses in parts}

    def _read(self, number: int) -> bytes:
        if self._file < 0:
            return b""
        return os.pread(self._file, self._size, _HEADER_SIZE + number * self._size)

    def _create(self) -> int:
        if os.path.isdir(self._path):  # the format of earlier versions
            import shutil

            shutil.rmtree(self._path, ignore_errors=True)
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._give_up(error)
            return -1

    def _write(self, data: bytes, offset: int) -> None:
        """Write in place: replacing the file would take longer than the rest of the call."""
        if self._file < 0:
            return
        try:
            while data:
                written = os.pwrite(self._file, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.close()
        self._file, self._is_complete = -1, False
        log.warning("cannot write the owner index %s; calls read all allocation files: %s", self._path, error)


def _encode(content: bytes, addresses: Sequence[str]) -> bytes:
    return _BEFORE + content + _BEHIND + ",".join(addresses).encode() if addresses else b""


def _record(bucket: bytes, content: bytes) -> tuple[int, int]:
    """Return where the record of an attachment begins and ends; both are the end of the bucket if there is none."""
    start = bucket.find(_BEFORE + content + _BEHIND)
    if start < 0:
        return len(bucket), len(bucket)
    end = bucket.find(_BEFORE, start + 1)
    return start, len(bucket) if end < 0 else end


def _addresses(record: bytes) -> Addresses:
    text = record.rpartition(_BEHIND)[2].decode("ascii", errors="replace")
    return tuple(text.split(",")) if text else ()


@cache
def _boot_id() -> str:
    with suppress(OSError), open(_BOOT_ID, encoding="utf-8") as file:
        return file.read().strip()
    return ""
