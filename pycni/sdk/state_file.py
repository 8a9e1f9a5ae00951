"""A file that keeps state of a plugin between calls. It is replaced as a whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.protocol.errors import CniError, Code


class StateFile:
    """The file at `path`. `what` names it in error messages.

    Example:
        backup = StateFile(Path("/run/cni/tuning") / f"{cni.container_id}.json", "the backup")
        backup.write(json.dumps(values))
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._temporary = path.with_name(f"{path.name}.new")

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> bytes | None:
        """Return the content; None if there is no such file. Raises CniError, code 5, if it cannot be read."""
        with self._translated_errors("read"):
            try:
                return self.path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, content: str) -> None:
        """Replace the content, or leave the file as it was. It and its directory are readable for root only.

        Missing directories are created. Raises CniError, code 5, if it cannot be written.
        """
        with self._translated_errors("write"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, content.encode())
                os.fsync(file)
            finally:
                os.close(file)
            self._temporary.replace(self.path)

    def remove(self) -> None:
        """Remove the file; it may be gone. Raises CniError, code 5, if it cannot be removed."""
        with self._translated_errors("remove"):
            try:
                self.path.unlink(missing_ok=True)
                self._temporary.unlink(missing_ok=True)
            except NotADirectoryError:
                return

    @contextmanager
    def _translated_errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = os.strerror(error.errno or 0).lower()
            raise CniError(f"cannot {verb} {self._what} {self}: {cause}", code=Code.IO_FAILURE) from None
