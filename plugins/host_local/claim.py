"""An allocation file before it has a name, so that no process that dies leaves an empty one (R-22).

There is no fsync. It would cost more than all the rest of an ADD together (0.2 to 4 ms where this was measured), and
protect nobody: no container survives the power failure that empties or loses a file. Empty files are found and freed,
by GC, and by ADD before it says that no address is left.
"""

import errno
import os
from contextlib import suppress
from typing import Self

from .holder import Holder

# What filesystems and old kernels say that have no files without a name.
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR}


class Claim:
    """A file with the holder in it that takes addresses by getting their names; make it before taking the lock."""

    def __init__(self, directory: int, holder: Holder) -> None:
        self.holder = holder
        self._directory = directory
        self._file = self._unnamed_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def take(self, address: str) -> None:
        """Take an address, all or nothing. Raises FileExistsError if it has a holder."""
        if self._file is not None:
            with suppress(FileNotFoundError):  # where /proc is not mounted
                # Given a directory, link() follows the symbolic link in /proc to the file that has no name yet.
                os.link(f"/proc/self/fd/{self._file}", address, dst_dir_fd=self._directory)
                return
        self._take_in_two_steps(address)

    def _unnamed_file(self) -> int | None:
        try:
            file = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno in _NO_UNNAMED_FILES:
                return None
            raise
        try:
            os.write(file, self.holder.content)
        except OSError:
            os.close(file)
            raise
        return file

    def _take_in_two_steps(self, address: str) -> None:
        """Create and fill, as Go's plugin does: a crash in between leaves an empty file, which GC frees."""
        file = os.open(address, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        try:
            os.write(file, self.holder.content)
        except OSError:
            os.unlink(address, dir_fd=self._directory)
            raise
        finally:
            os.close(file)
