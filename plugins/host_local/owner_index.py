"""The owner index: which addresses each attachment holds, so that a call does not read all allocation files.

The allocation files are authoritative. The index, `<dataDir>/.<network>.owners`, is one file; the Go plugin ignores it.
A header is followed by buckets of equal size. A checksum of the attachment's id selects a bucket, which contains a
record per allocation file: what the file contains, and its name. A call reads and writes one bucket.

The header contains a seal: the modification time of the store's directory when the index was last valid, and the boot.
The Go plugin, or an administrator, changes that time by adding or removing a file. Then the index is invalid, and the
next call reads all allocation files and rebuilds it. A crash of the machine may lose a part of the index, so it is also
invalid after a boot.
"""

import logging
import os
import threading
import time
from binascii import crc32
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property

from .attachment_id import AttachmentId

log = logging.getLogger(__name__)

_FORMAT, _HEADER_SIZE = "pycni host-local owners 1", 128
_RECORD, _FIELD, _UNUSED = b"\0", b"\t", b"\0"  # what precedes a record, what separates its fields, and what pads
_BETWEEN_BUCKETS = b"\0\0"  # in the pipe from a child process; no record is empty
_FEWEST_BUCKETS, _RECORDS_PER_BUCKET = 16, 32  # of a new index, which is rebuilt when a bucket is full
_BUCKET_STEP, _SMALLEST_BUCKET, _LARGEST_BUCKET = 256, 1024, 1 << 24  # bytes
_FIRST_OF_ADDRESS = frozenset("0123456789abcdef:")
_READ_SIZE, _REST = 1 << 12, 1 << 17  # together at least the longest container id: an environment variable
_FEWEST_FOR_TWO_PROCESSES = 2000  # files; a child process takes 3 ms
_ORDINARY_SIZE = 512  # bytes; a longer content is indexed only if it can be that of an allocation file
_NO_SEAL = "-"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

Addresses = tuple[str, ...]


class OwnerIndex:
    """The owner index of one store. Use it under the lock of the store, and close it.

    An index that cannot be written is never valid; each call then reads the allocation files.
    """

    def __init__(self, path: str, store: int) -> None:
        self._path = path
        self._store = store  # file descriptor of the store's directory
        self._is_complete = True  # until a write fails
        self._count = self._size = 0  # the number of buckets, and the size of each in bytes
        self._seal = _NO_SEAL
        self._buckets: dict[int, bytes] = {}  # those that this call has read, without padding; all after a rebuild

    @cached_property
    def is_valid(self) -> bool:
        """Whether the index matches the store."""
        return self._file >= 0 and self._seal == _seal_of(os.fstat(self._store).st_mtime_ns)

    @cached_property
    def _file(self) -> int:
        """The descriptor of the file, or -1 if there is no index."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return -1
        with suppress(OSError, ValueError):
            header = os.pread(file, _HEADER_SIZE, 0).decode()
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
        """Return the names of the files with the content of this attachment; complete only if the index is valid."""
        content = owner.content
        bucket, prefix = self._read(crc32(content) % self._count), content + _FIELD
        if _RECORD + prefix not in bucket:
            return ()
        return tuple(record.removeprefix(prefix).decode() for record in _records(bucket) if record.startswith(prefix))

    def put(self, owner: AttachmentId, addresses: Sequence[str]) -> None:
        """Record the addresses of the attachment, in place of those that it had."""
        content = owner.content
        number, prefix = crc32(content) % self._count, content + _FIELD
        bucket = self._read(number)
        if _RECORD + prefix in bucket:
            bucket = b"".join(_RECORD + record for record in _records(bucket) if not record.startswith(prefix))
        bucket += b"".join(_RECORD + prefix + address.encode() for address in addresses)
        self._buckets[number] = bucket
        if len(bucket) <= self._size:
            self._write(bucket.ljust(self._size, _UNUSED), _HEADER_SIZE + number * self._size)
        else:
            self.rebuild()

    def rebuild(self) -> None:
        """Read all allocation files, and write the index."""
        names = [name for name in os.listdir(self._store) if name[0] in _FIRST_OF_ADDRESS and name.isascii()]
        count = max(_FEWEST_BUCKETS, len(names) // _RECORDS_PER_BUCKET)
        may_fork = threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1
        read = _read_in_two_processes if may_fork and len(names) >= _FEWEST_FOR_TWO_PROCESSES else _read_files
        self._write_all(read(self._store, names, count))

    def all(self) -> Iterator[tuple[AttachmentId, str]]:
        """Yield each attachment with one of its addresses, in any order."""
        for number in range(self._count):
            for record in _records(self._read(number)):
                content, _, address = record.rpartition(_FIELD)
                if owner := AttachmentId.parse(content):
                    yield owner, address.decode()

    def seal(self) -> None:
        """Mark the index as valid for the current state of the store.

        Set the directory's modification time to the current time in nanoseconds. The kernel's clock is coarser, so the
        next change sets another time, even within the same tick.
        """
        if not self._is_complete or self._file < 0:
            return
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._store, ns=(now, now))
        if os.fstat(self._store).st_mtime_ns == now:  # not on a filesystem with a resolution of seconds
            self._write(self._header(_seal_of(now)), 0)

    def _header(self, seal: str) -> bytes:
        return f"{_FORMAT} {self._count} {self._size} {seal}".encode().ljust(_HEADER_SIZE)

    def _read(self, number: int) -> bytes:
        bucket = self._buckets.get(number)
        if bucket is None:
            padded = os.pread(self._file, self._size, _HEADER_SIZE + number * self._size)
            end = padded.find(_UNUSED * 2)  # 20 times as fast as rstrip()
            bucket = self._buckets[number] = padded[:end] if end >= 0 else padded.rstrip(_UNUSED)
        return bucket

    def _write_all(self, buckets: list[bytes]) -> None:
        room = max(map(len, buckets)) * 5 // 4
        self._size = max(_SMALLEST_BUCKET, -(-room // _BUCKET_STEP) * _BUCKET_STEP)
        self._count, self._buckets = len(buckets), dict(enumerate(buckets))
        if self._file < 0:
            self._file = self._create()
        self._write(self._header(_NO_SEAL) + b"".join([bucket.ljust(self._size, _UNUSED) for bucket in buckets]), 0)
        self.is_valid = True  # for this call

    def _create(self) -> int:
        if os.path.isdir(self._path):  # the index of an earlier version
            import shutil

            shutil.rmtree(self._path, ignore_errors=True)
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._give_up(error)
            return -1

    def _write(self, data: bytes, offset: int) -> None:
        """Write in place, since replacing the file would take longer than the rest of the call."""
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
        log.warning("cannot write %s, so every call reads all allocation files: %s", self._path, error)


def _read_files(directory: int, names: Sequence[str], count: int) -> list[bytes]:
    """Return `count` buckets with the records of these files. It is written for speed: 6 µs per file."""
    buckets = [b""] * count
    open_, read, close, flags = os.open, os.read, os.close, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    for name in names:
        try:
            file = open_(name, flags, dir_fd=directory)
        except OSError:
            continue
        try:
            content = read(file, _READ_SIZE)
            if len(content) == _READ_SIZE:
                content += read(file, _REST)
        except OSError:
            continue
        finally:
            close(file)
        content = content.strip()
        if not content or _RECORD in content or _FIELD in content:
            continue  # no plugin has written it
        if len(content) < _ORDINARY_SIZE or AttachmentId.parse(content):
            buckets[crc32(content) % count] += _RECORD + content + _FIELD + name.encode()
    return buckets


def _read_in_two_processes(directory: int, names: Sequence[str], count: int) -> list[bytes]:
    """Return the same. A child process reads the second half of the files at the same time."""
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with open(writer, "wb") as pipe:
                pipe.write(_BETWEEN_BUCKETS.join(_read_files(directory, second, count)))
        except BaseException:  # noqa: BLE001 - the parent reads the files itself
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        buckets, data = _read_files(directory, first, count), pipe.read()
    _, status = os.waitpid(child, 0)
    others = _read_files(directory, second, count) if status else data.split(_BETWEEN_BUCKETS)
    return [one + other for one, other in zip(buckets, others, strict=True)]


def _records(bucket: bytes) -> list[bytes]:
    return bucket.split(_RECORD)[1:]


def _seal_of(mtime: int) -> str:
    return f"{mtime}@{_boot_id()}"


@cache
def _boot_id() -> str:
    with suppress(OSError), open(_BOOT_ID, encoding="utf-8") as file:
        return file.read().strip()
    return ""
