"""Named network namespaces: files that keep a namespace alive, as `ip netns` creates them in /run/netns."""

import ctypes
import os
from pathlib import Path

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle, c_library, unshare_network
from pycni.protocol.errors import CniError, Code

DIRECTORY = Path("/run/netns")
_BIND, _RECURSIVE, _SHARED = 4096, 16384, 1 << 20


def create(path: Path) -> None:
    """Create a network namespace that exists until the file `path` is unmounted. Raises CniError, code 8."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.parent == DIRECTORY:
            _make_shared(DIRECTORY)
        path.touch(mode=0o444, exist_ok=False)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise CniError(f'cannot create netns "{path}": {cause}', code=Code.INVALID_NETNS) from None
    try:
        _bind_new_namespace(path)
    except OSError as error:
        path.unlink()
        raise CniError(
            f'cannot create netns "{path}": {(error.strerror or str(error)).lower()}',
            code=Code.INVALID_NETNS,
            details="run it as root, or as root of a user namespace (`unshare -Urnm`)",
        ) from None


def _make_shared(directory: Path) -> None:
    # As `ip netns` does it: processes in other mount namespaces see what is mounted here later.
    if _mount("", directory, _SHARED | _RECURSIVE) != 0:
        _mount(str(directory), directory, _BIND | _RECURSIVE)
        _mount("", directory, _SHARED | _RECURSIVE)


def _bind_new_namespace(path: Path) -> None:
    before = NetnsHandle(OWN, Journal())
    try:
        unshare_network()
        try:
            if _mount(OWN, path, _BIND) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            before.enter_permanently()
    finally:
        before.close()


def _mount(source: str, target: Path, flags: int) -> int:
    return int(c_library().mount(os.fsencode(source), os.fsencode(target), b"none", ctypes.c_ulong(flags), None))
