"""The store of a network's reservations: a directory that the Go plugin can use at the same time.

`<dataDir>/<network>` has the Go plugin's format, byte for byte: one allocation file per reserved address, which names
the attachment, `last_reserved_ip.N` for each range set, and `lock`. A file with the name of an address reserves it.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from pycni.sdk import CniError, Code, lock_file, yield_turn

from .allocations import AllocationFiles
from .attachment_id import AttachmentId
from .owner_index import OwnerIndex
from .reservation import Reservation

LOCK_TIMEOUT = 10.0  # seconds
_thread_locks: dict[tuple[int, int], threading.Lock] = {}  # by device and inode of the lock file


class AddressStore:
    """An open store, which a `with` statement closes."""

    def __init__(self, data_dir: str, network: str) -> None:
        """Open the store. Raise FileNotFoundError if it does not exist."""
        self.path = f"{data_dir}/{network}"
        self._owners_path = f"{data_dir}/.{network}.owners"
        self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    @classmethod
    def find(cls, data_dir: str, network: str) -> Self | None:
        """Return the opened store; None if it does not exist."""
        with _explained(f"{data_dir}/{network}"), suppress(FileNotFoundError, NotADirectoryError):
            return cls(data_dir, network)
        return None

    @classmethod
    def ensure(cls, data_dir: str, network: str) -> Self:
        """Return the opened store. Create it if it does not exist."""
        if store := cls.find(data_dir, network):
            return store
        with _explained(f"{data_dir}/{network}"):
            os.makedirs(f"{data_dir}/{network}", 0o755, exist_ok=True)
            return cls(data_dir, network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def prepare_reservation(self, owner: AttachmentId) -> Reservation:
        """Return the reservation for `AllocationFiles.reserve`. Call it before locking, to keep the lock short."""
        with _explained(self.path):
            return Reservation(self._directory, owner)

    @contextmanager
    def locked(self, timeout: float = LOCK_TIMEOUT) -> Iterator[AllocationFiles]:
        """Lock the store and yield its allocation files. Raise CniError, code 11, after `timeout` seconds."""
        with _explained(self.path):
            lock = os.open("lock", os.O_RDONLY | os.O_CREAT, 0o750, dir_fd=self._directory)
            try:
                with self._acquired(lock, timeout):
                    allocations = self.unlocked()
                    try:
                        yield allocations
                    finally:
                        allocations.finish()
            finally:
                os.close(lock)

    def unlocked(self) -> AllocationFiles:
        """Return the allocation files without the lock, for reading only. They may change at any time."""
        return AllocationFiles(self.path, self._directory, OwnerIndex(self._owners_path, self._directory))

    @contextmanager
    def _acquired(self, lock: int, timeout: float) -> Iterator[None]:
        """Acquire the lock: first among the threads of this process, which wait in a queue, then among processes."""
        deadline, status = time.monotonic() + timeout, os.fstat(lock)
        thread_lock = _thread_locks.setdefault((status.st_dev, status.st_ino), threading.Lock())
        if not (thread_lock.acquire(blocking=False) or _wait_for_thread(thread_lock, timeout)):
            raise self._busy(lock, timeout)
        try:
            if not lock_file(lock, deadline - time.monotonic()):
                raise self._busy(lock, timeout)
            try:
                yield
            finally:
                # A forked child may have the descriptor open: then closing it does not unlock.
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            thread_lock.release()

    def _busy(self, lock: int, timeout: float) -> CniError:
        return CniError(
            f"host-local waited {timeout:g} s for the lock of {self.path}, held by {_lock_holder(lock)}",
            code=Code.TRY_AGAIN_LATER,
            details=f"try again; if that process hangs, end it (the lock is {self.path}/lock)",
        )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn an OSError into a CniError that names the store."""
    try:
        yield
    except OSError as error:
        explained = CniError(
            f"host-local cannot use its store {path}: {error.strerror or error}",
            code=Code.IO_FAILURE,
            details=f"{error.filename or path}: dataDir must be a directory on a writable filesystem",
        )
        for note in getattr(error, "__notes__", ()):
            explained.add_note(note)
        raise explained from error


def expect_writable(data_dir: str, network: str) -> None:
    """Raise CniError, code 50, unless the store, or the directory in which ADD creates it, is writable."""
    path = f"{data_dir}/{network}"
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    if not (os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)):
        raise CniError(
            f"host-local cannot write its store {data_dir}/{network}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details=f"{path} is {'not writable' if os.path.isdir(path) else 'not a directory'}",
        )


def _wait_for_thread(thread_lock: threading.Lock, timeout: float) -> bool:
    with yield_turn(briefly=True):
        return thread_lock.acquire(timeout=timeout)


def _lock_holder(lock: int) -> str:
    """Return a description of the process that has locked the file."""
    status = os.fstat(lock)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="utf-8") as locks:
        for line in locks:
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF; processes that wait have an arrow after the number
            kind, _, _, pid, locked_file = (line.split()[1:6] + [""] * 5)[:5]
            if kind == "FLOCK" and locked_file == file:
                return f"process {pid} ({_command(pid)})"
    return "a process in another PID namespace"


def _command(pid: str) -> str:
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
        return name.read().strip()
    return "ended"
