"""The owner index: a cache of the addresses of each attachment, which avoids reading all allocation files.

The allocation files are authoritative. The index, `<dataDir>/.<network>.owners`, is a directory with one symbolic link
per attachment, whose target is the list of its addresses, and a file `seal`, which contains the modification time of
the store's directory when the index was last valid. The Go plugin does not use the index. If it or an administrator
adds or removes a file of the store, the directory's modification time changes and differs from the seal. The next call
then reads the files once and rebuilds the index (docs/reference/plugins.md#host-local).
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .attachment_id import AttachmentId

log = logging.getLogger(__name__)

_SEAL = "seal"
_LONGEST_NAME = 255  # bytes

Addresses = tuple[str, ...]


class OwnerIndex:
    """The owner index of one store. Use it under the lock of the store.

    An index that cannot be written is never valid; the allocation files are read instead.
    """

    def __init__(self, path: str, store: int) -> None:
        self._path = path
        self._store = store  # file descriptor of the store's directory
        self._is_complete = True  # until a write fails
        self._known: dict[AttachmentId, Addresses] | None = None  # the content of the files, if this call has read them
        self._targets: dict[str, str] = {}  # targets of the symbolic links that were read
        self.is_valid = self._read_seal() == str(os.fstat(store).st_mtime_ns)

    def find(self, owner: AttachmentId) -> Addresses:
        """Return the addresses of the attachment; complete only if the index is valid."""
        if self._known is not None:
            return self._known.get(owner, ())
        addresses = self._read(_name(owner))
        return tuple(addresses.split(",")) if addresses else ()

    def put(self, owner: AttachmentId, addresses: Sequence[str]) -> None:
        """Record the addresses of the attachment."""
        if self._known is not None:
            self._known[owner] = tuple(addresses)
        self._set_link(_name(owner), ",".join(addresses))

    def replace(self, known: Mapping[AttachmentId, Addresses]) -> None:
        """Rebuild the index from the content of the files."""
        self._known = dict(known)
        self.is_valid = True
        wanted = {_name(owner): ",".join(addresses) for owner, addresses in known.items()}
        with suppress(OSError):  # the index does not exist yet, or cannot be accessed
            for name in set(os.listdir(self._path)) - wanted.keys() - {_SEAL}:
                self._set_link(name, "")
        for name, addresses in wanted.items():
            if self._read(name) != addresses:
                self._set_link(name, addresses)

    def seal(self) -> None:
        """Mark the index as valid for the current content of the store.

        The modification time of the store's directory is set with full resolution, so that the next change has a
        different time, even in the same tick of the kernel's clock.
        """
        if not self._is_complete:
            return
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._store, ns=(now, now))
        if os.fstat(self._store).st_mtime_ns == now:  # fails on filesystems with a coarser resolution
            self._write_seal(str(now))

    def _read_seal(self) -> str:
        try:
            file = os.open(f"{self._path}/{_SEAL}", os.O_RDONLY)
        except OSError:
            return ""
        try:
            return os.read(file, 64).decode("ascii", errors="replace")
        finally:
            os.close(file)

    def _write_seal(self, text: str) -> None:
        # Written in place: replacing the file would take ext4 longer than the rest of an ADD.
        with suppress(OSError):
            file = os.open(f"{self._path}/{_SEAL}", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(file, text.encode("ascii"))
            finally:
                os.close(file)

    def _read(self, name: str) -> str:
        if name not in self._targets:
            try:
                self._targets[name] = os.readlink(f"{self._path}/{name}")
            except OSError:
                self._targets[name] = ""
        return self._targets[name]

    def _set_link(self, name: str, target: str) -> None:
        """Create or replace a symbolic link, or remove it if `target` is empty."""
        link = f"{self._path}/{name}"
        try:
            if self._targets.pop(name, "unknown"):
                with suppress(FileNotFoundError):
                    os.unlink(link)
            if target:
                self._create_link(target, link)
        except OSError as error:
            self._is_complete = False
            log.warning("cannot write the owner index %s; calls read all allocation files: %s", self._path, error)

    def _create_link(self, target: str, link: str) -> None:
        try:
            os.symlink(target, link)
        except FileNotFoundError:
            os.mkdir(self._path, 0o700)
            os.symlink(target, link)


def _name(owner: AttachmentId) -> str:
    """Return the name of the attachment's link. Container ids and interface names contain no colon."""
    name = f"{owner.container_id}:{owner.ifname}"
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    import hashlib

    return f"{hashlib.sha256(owner.content).hexdigest()}:"
