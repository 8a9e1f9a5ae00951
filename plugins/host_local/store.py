"""The directory of a network's allocations, which Go's host-local and this one may share at the same time.

`<dataDir>/<network>` holds, byte for byte as the Go plugin writes it, one file per taken address with its holder in it,
`last_reserved_ip.N` for each range set, and `lock`. The files are the truth: what is called like an address is taken.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from pycni.sdk import CniError, Code, yield_turn

from .allocations import Allocations
from .claim import Claim
from .holder import Holder
from .owners import Owners

PATIENCE = 10.0  # seconds to wait for the lock
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.02  # seconds between two tries
_queues: dict[tuple[int, int], threading.Lock] = {}  # of this process's threads, by device and inode of the lock


class Store:
    """An open store, to be closed by `with`."""

    def __init__(self, data_dir: str, network: str) -> None:
        """Open it. Raises FileNotFoundError if it is not there."""
        self.path = f"{data_dir}/{network}"
        self._owners_path = f"{data_dir}/.{network}.owners"
        self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    @classmethod
    def find(cls, data_dir: str, network: str) -> Self | None:
        """The store; None if nothing was ever allocated."""
        with _explained(f"{data_dir}/{network}"), suppress(FileNotFoundError, NotADirectoryError):
            return cls(data_dir, network)
        return None

    @classmethod
    def ensure(cls, data_dir: str, network: str) -> Self:
        """The store, made with its parents if it is not there."""
        if store := cls.find(data_dir, network):
            return store
        with _explained(f"{data_dir}/{network}"):
            os.makedirs(f"{data_dir}/{network}", 0o755, exist_ok=True)
            return cls(data_dir, network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def claim(self, holder: Holder) -> Claim:
        """What `Allocations.reserve` needs; make it before locking, so that nobody waits for it."""
        with _explained(self.path):
            return Claim(self._directory, holder)

    @contextmanager
    def locked(self, patience: float = PATIENCE) -> Iterator[Allocations]:
        """What is allocated, with nobody else at it. Raises CniError, code 11, after `patience` seconds of waiting."""
        with _explained(self.path):
            lock = os.open("lock", os.O_RDONLY | os.O_CREAT, 0o750, dir_fd=self._directory)
            try:
                with self._taken(lock, patience):
                    allocations = self.unlocked()
                    try:
                        yield allocations
                    finally:
                        allocations.settle()
            finally:
                os.close(lock)

    def unlocked(self) -> Allocations:
        """What is allocated, to look at only: it may change meanwhile."""
        return Allocations(self.path, self._directory, Owners(self._owners_path, self._directory))

    @contextmanager
    def _taken(self, lock: int, patience: float) -> Iterator[None]:
        """Have the lock to ourselves: first among the threads of this process, who queue, then among processes."""
        deadline, status = time.monotonic() + patience, os.fstat(lock)
        queue = _queues.setdefault((status.st_dev, status.st_ino), threading.Lock())
        if not (queue.acquire(blocking=False) or _queued(queue, patience)):
            raise self._busy(lock, patience)
        try:
            if not _wait_for(lock, deadline):
                raise self._busy(lock, patience)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a forked child has it open too
        finally:
            queue.release()

    def _busy(self, lock: int, patience: float) -> CniError:
        return CniError(
            f"host-local waited {patience:g} s for the lock of {self.path}, held by {_lock_holder(lock)}",
            code=Code.TRY_AGAIN_LATER,
            details=f"try again; if that process is stuck, end it (the lock is {self.path}/lock)",
        )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say of a failure of the filesystem which store it concerns."""
    try:
        yield
    except OSError as error:
        explained = CniError(
            f"host-local cannot use its store {path}: {error.strerror or error}",
            code=Code.IO_FAILURE,
            details=f"{error.filename or path}: dataDir must be a directory on a filesystem that can be written",
        )
        for note in getattr(error, "__notes__", ()):
            explained.add_note(note)
        raise explained from error


def expect_writable(data_dir: str, network: str) -> None:
    """Raise CniError, code 50, unless the store, or the directory in which it would be made, can be written."""
    path = f"{data_dir}/{network}"
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    if not (os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)):
        raise CniError(
            f"host-local cannot write its store {data_dir}/{network}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details=f"{path} is {'not writable' if os.path.isdir(path) else 'no directory'}",
        )


def _queued(queue: threading.Lock, patience: float) -> bool:
    with yield_turn(briefly=True):
        return queue.acquire(timeout=patience)


def _wait_for(lock: int, deadline: float) -> bool:
    """Take the lock; False if it is not to be had in time (flock() knows no deadline, hence the tries)."""
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            with yield_turn(briefly=True):
                time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return True


def _lock_holder(lock: int) -> str:
    """Who has locked a file, in words."""
    status = os.fstat(lock)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF; who waits has an arrow behind the number
            kind, _, _, pid, locked_file = (line.split()[1:6] + [""] * 5)[:5]
            if kind == "FLOCK" and locked_file == file:
                return f"process {pid} ({_command(pid)})"
    return "a process that cannot be seen from here"


def _command(pid: str) -> str:
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
        return name.read().strip()
    return "gone"
