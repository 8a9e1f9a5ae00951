"""Atomic replacement of files that other programs may read at any time."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.protocol.errors import CniError


def place(target: Path, fill: Callable[[Path], object], mode: int = 0o755) -> None:
    """Call `fill` with a temporary path beside `target`, fsync the file, and rename it to `target`."""
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


def remove_if_empty(directory: Path) -> None:
    """Remove the directory unless it is not empty, a mount point or absent."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):
            raise


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn an OSError raised inside the block into a CniError that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise CniError(f"{failure}: {(error.strerror or str(error)).lower()}: {error.filename}") from None
