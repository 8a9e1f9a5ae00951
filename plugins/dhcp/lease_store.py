"""The leases that a lease daemon keeps across restarts: a directory with one file per binding.

The directory is beside the daemon's socket in /run, so a reboot deletes it together with the containers.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pycni.sdk import CniError, Code, Field, Model, Owner, StateFile, ValidationError, lock_file

from .client import DhcpClient
from .lease import DhcpLease

log = logging.getLogger(__name__)


class LeaseRecord(Model):
    """The stored state of a binding."""

    client: DhcpClient
    cookie: str = Field(alias="incarnation")  # identifies the network namespace, because its path can be reused
    index: int  # of the interface in the namespace
    lease: DhcpLease
    withdrawn: bool = False  # whether the address was removed from the interface because the lease ended


class LeaseStore:
    """A directory of lease records."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def beside(cls, socket: Path) -> Self:
        """Return the store of the daemon at this socket: /run/cni/dhcp.leases for /run/cni/dhcp.sock."""
        return cls(socket.with_suffix(".leases"))

    def records(self) -> Iterator[LeaseRecord]:
        """Yield all records. Log and skip those that cannot be read."""
        for path in sorted(self.directory.glob("*.json")):
            if record := self._read(path):
                yield record

    def write(self, record: LeaseRecord) -> None:
        """Write the record atomically. Raise CniError, code 5."""
        self._file(record.client.owner).write(record.model_dump_json(by_alias=True, indent=1))

    def remove(self, owner: Owner) -> None:
        """Remove the record of an attachment. Raise CniError, code 5."""
        self._file(owner).remove()

    @contextmanager
    def locked(self, timeout: float = 0.0) -> Iterator[bool]:
        """Lock the store for a lease daemon; yield False if another process holds the lock after `timeout` seconds."""
        with self._with_context():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock_file(lock, timeout)
        finally:
            os.close(lock)

    def _file(self, owner: Owner) -> StateFile:
        return StateFile(self.directory / f"{owner.key}.json", "the DHCP lease")

    def _read(self, path: Path) -> LeaseRecord | None:
        try:
            return LeaseRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("ignoring the lease file %s, which cannot be read: %s", path, error)
            return None

    @contextmanager
    def _with_context(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CniError(
                f"dhcp cannot use its lease store {self.directory}: {(error.strerror or str(error)).lower()}",
                code=Code.IO_FAILURE,
                details="leases are stored beside the daemon's socket: its directory must be on a writable filesystem",
            ) from error
