"""What each attachment holds: a cache beside the store, so that nobody need read all allocation files (R-23).

The allocation files are the truth. The cache, `<dataDir>/.<network>.owners`, is a directory with one symbolic link per
attachment, whose target is the list of its addresses, and a file `seal` with the time of the store's last change that
the cache knows of. Go's plugin never looks there; but whatever it, or an administrator, adds to the store or removes
from it changes the time of the store's directory. The seal no longer fits, and the next call reads the files once.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .holder import Holder

log = logging.getLogger(__name__)

_SEAL = "seal"
_LONGEST_NAME = 255  # bytes

Addresses = tuple[str, ...]


class Owners:
    """The cache of one store; to be used under the store's lock.

    A cache that cannot be written is never in step, and that is all: the files are read instead.
    """

    def __init__(self, path: str, store: int) -> None:
        self._path = path
        self._store = store  # file descriptor of its directory
        self._whole = True  # until something could not be written
        self._known: dict[Holder, Addresses] | None = None  # what the files have shown to this call
        self._targets: dict[str, str] = {}  # of the links that it has looked at
        self.in_step = self._read_seal() == str(os.fstat(store).st_mtime_ns)

    def find(self, holder: Holder) -> Addresses:
        """The addresses of this very holder; complete if the cache is in step."""
        if self._known is not None:
            return self._known.get(holder, ())
        addresses = self._read(_name(holder))
        return tuple(addresses.split(",")) if addresses else ()

    def put(self, holder: Holder, addresses: Sequence[str]) -> None:
        """Note what the holder has from now on."""
        if self._known is not None:
            self._known[holder] = tuple(addresses)
        self._point(_name(holder), ",".join(addresses))

    def replace(self, known: Mapping[Holder, Addresses]) -> None:
        """Start anew from what reading the files has shown."""
        self._known = dict(known)
        self.in_step = True
        wanted = {_name(holder): ",".join(addresses) for holder, addresses in known.items()}
        with suppress(OSError):  # not there yet, or nothing can be written there either
            for name in set(os.listdir(self._path)) - wanted.keys() - {_SEAL}:
                self._point(name, "")
        for name, addresses in wanted.items():
            if self._read(name) != addresses:
                self._point(name, addresses)

    def seal(self) -> None:
        """Declare the cache to be in step with the store as it is now.

        The time of the store's directory is set to a value of full resolution: the next change, even one in the same
        tick of the kernel's clock, has another one.
        """
        if not self._whole:
            return
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._store, ns=(now, now))
        if os.fstat(self._store).st_mtime_ns == now:  # a filesystem that counts in seconds gets no seal
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
        # Written in place: a seal that had a new inode each time would cost ext4 more than all the rest.
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

    def _point(self, name: str, target: str) -> None:
        """Let a link point at a target; without one, remove it."""
        link = f"{self._path}/{name}"
        try:
            if self._targets.pop(name, "there may be one"):
                with suppress(FileNotFoundError):
                    os.unlink(link)
            if target:
                self._link(target, link)
        except OSError as error:
            self._whole = False
            log.warning("%s is not kept, all allocation files will be read: %s", self._path, error)

    def _link(self, target: str, link: str) -> None:
        try:
            os.symlink(target, link)
        except FileNotFoundError:
            os.mkdir(self._path, 0o700)
            os.symlink(target, link)


def _name(holder: Holder) -> str:
    """The link of a holder; neither a container id nor an interface name has a colon."""
    name = f"{holder.container_id}:{holder.ifname}"
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    import hashlib

    return f"{hashlib.sha256(holder.content).hexdigest()}:"
