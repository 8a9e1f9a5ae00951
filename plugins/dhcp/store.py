"""What a keeper remembers when it is started anew: a directory with a file for each binding.

It stands beside the keeper's socket, so it goes when the machine is started anew, as the containers do.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pycni.sdk import CniError, Code, Field, Model, Owner, StateFile, ValidationError

from .client import Client
from .lease import Lease

log = logging.getLogger(__name__)

_PAUSE = 0.05  # seconds between two tries to get the lock


class Record(Model):
    """A binding as it is written down."""

    client: Client
    cookie: str = Field(alias="incarnation")  # of the container's namespace: its path may lead to another one by now
    index: int  # of the interface in it
    lease: Lease
    withdrawn: bool = False  # whether the address was taken from the interface, because it is the container's no more


class Store:
    """The directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def beside(cls, socket: Path) -> Self:
        """The store of the keeper that listens at this socket: /run/cni/dhcp.leases for /run/cni/dhcp.sock."""
        return cls(socket.with_suffix(".leases"))

    def records(self) -> Iterator[Record]:
        """All that can be read."""
        for path in sorted(self.directory.glob("*.json")):
            if record := self._read(path):
                yield record

    def write(self, record: Record) -> None:
        """Write the whole of it or nothing. Raises CniError, code 5."""
        self._file(record.client.owner).write(record.model_dump_json(by_alias=True, indent=1))

    def remove(self, owner: Owner) -> None:
        """Forget a binding. Raises CniError, code 5."""
        self._file(owner).remove()

    @contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[bool]:
        """Be the only one who looks after the bindings, if nobody else is for so many seconds; whether that is so."""
        with self._explained():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + patience
            while not (free := _lock(lock)) and time.monotonic() < deadline:
                time.sleep(_PAUSE)
            yield free
        finally:
            os.close(lock)

    def _file(self, owner: Owner) -> StateFile:
        return StateFile(self.directory / f"{owner.key}.json", "the DHCP lease")

    def _read(self, path: Path) -> Record | None:
        try:
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be understood and is left alone: %s", path, error)
            return None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CniError(
                f"dhcp cannot use its store {self.directory}: {(error.strerror or str(error)).lower()}",
                code=Code.IO_FAILURE,
                details="leases are kept beside the keeper's socket, on a filesystem that can be written",
            ) from error


def _lock(lock: int) -> bool:
    """Lock the file, unless somebody else has; whether it is ours."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
