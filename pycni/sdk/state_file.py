"""A file in which a plugin remembers something beyond a call: written whole or not at all, gone is fine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.protocol.errors import CniError, Code


class StateFile:
    """The file at `path`; `what` says in errors what it is, as in "the backup"."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._unfinished = path.with_name(f"{path.name}.new")

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> bytes | None:
        """What is in it; None if there is no such file. Raises CniError, code 5."""
        with self._explained("read"):
            try:
                return self.path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, content: str) -> None:
        """Write all of it, readable for root alone. Raises CniError, code 5."""
        with self._explained("write"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, content.encode())
                os.fsync(file)
            finally:
                os.close(file)
            self._unfinished.replace(self.path)

    def remove(self) -> None:
        """Remove it. Raises CniError, code 5."""
        with self._explained("remove"):
            try:
                self.path.unlink(missing_ok=True)
                self._unfinished.unlink(missing_ok=True)
            except NotADirectoryError:
                return

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = os.strerror(error.errno or 0).lower()
            raise CniError(f"cannot {verb} {self._what} {self}: {cause}", code=Code.IO_FAILURE) from None
