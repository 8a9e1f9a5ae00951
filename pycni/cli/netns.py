"""The argument NETNS: a path, or the name of a network namespace in /run/netns."""

import hashlib
import os
from pathlib import Path

from pycni.protocol.errors import CniError, Code

DIRECTORY = Path("/run/netns")


def resolve(text: str) -> Path:
    """Return the absolute path that `text` refers to. The path need not exist.

    A name without a slash refers to /run/netns/NAME; if only ./NAME exists, to that file.
    """
    if not text:
        raise CniError(
            "NETNS is empty", code=Code.INVALID_NETNS, details="give the path or the name of a network namespace"
        )
    here = Path(os.path.normpath(Path.cwd() / text))
    if "/" in text or text in {".", ".."}:
        return here
    named = DIRECTORY / text
    return here if here.exists() and not named.exists() else named


def ensure(text: str, *, create: bool) -> Path:
    """Return the path of a network namespace; with `create`, create it if missing. Raise CniError, code 8."""
    path = resolve(text)
    if path.exists():
        return path
    if create:
        from pycni.kernel.netns import named

        named.create(path)
    elif "/" not in text:
        raise CniError(
            f'network namespace "{text}" does not exist',
            code=Code.INVALID_NETNS,
            details=f"there is no file {path}; --create-netns creates it, `ip netns list` lists the existing ones",
        )
    return path


def container_id(path: Path) -> str:
    """Return the container id that cnitool derives from the path of a network namespace."""
    return f"cnitool-{hashlib.sha512(os.fsencode(path)).digest()[:10].hex()}"
