"""A reservation: an allocation file that is written before it gets its name, so that a crash leaves no empty file.

There is no fsync: it takes 0.2 to 4 ms, more than the rest of an ADD, and containers do not survive the power failure
that it protects against. GC frees empty files, and so does ADD before it reports that a set has no free address
(docs/reference/plugins.md#host-local).
"""

import errno
import os
from contextlib import suppress
from typing import Self

from .attachment_id import AttachmentId

# Errors of filesystems and old kernels without support for O_TMPFILE.
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR}


class Reservation:
    """An unnamed allocation file that reserves addresses by being linked to their names.

    Create it before taking the lock of the store, so that other processes do not wait for it.
    """

    def __init__(self, directory: int, owner: AttachmentId) -> None:
        self.owner = owner
        self._directory = directory
        self._file = self._unnamed_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def reserve(self, address: str) -> None:
        """Reserve an address atomically. Raise FileExistsError if it is reserved already."""
        if self._file is not None:
            with suppress(FileNotFoundError):  # /proc is not mounted
                # With dst_dir_fd, link() follows the symbolic link in /proc to the unnamed file.
                os.link(f"/proc/self/fd/{self._file}", address, dst_dir_fd=self._directory)
                return
        self._create_and_write(address)

    def _unnamed_file(self) -> int | None:
        try:
            file = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno in _NO_UNNAMED_FILES:
                return None
            raise
        try:
            os.write(file, self.owner.content)
        except OSError:
            os.close(file)
            raise
        return file

    def _create_and_write(self, address: str) -> None:
        """Create the file, then write it, as the Go plugin does. A crash in between leaves an empty file."""
        file = os.open(address, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        try:
            os.write(file, self.owner.content)
        except OSError:
            os.unlink(address, dir_fd=self._directory)
            raise
        finally:
            os.close(file)
