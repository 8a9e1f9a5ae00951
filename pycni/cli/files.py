"""Files that others read at any moment: each is replaced whole, or stays as it was."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.protocol.errors import CniError


def place(target: Path, fill: Callable[[Path], object], mode: int = 0o755) -> None:
    """Have `fill` write a temporary file beside the target, and rename it to the target when it is on the disk."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(descriptor)
    path = Path(name)
    try:
        fill(path)
        if not path.is_symlink():
            path.chmod(mode)
            _sync(path)
        path.replace(target)
        _sync(target.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn an OSError into a CniError that says what it is a failure of."""
    try:
        yield
    except OSError as error:
        raise CniError(f"{failure}: {(error.strerror or str(error)).lower()}: {error.filename}") from None
