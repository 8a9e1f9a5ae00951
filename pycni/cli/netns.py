"""NETNS on the command line: a path, or the name of a namespace in /run/netns."""

import hashlib
import os
from pathlib import Path

from pycni.protocol.errors import CniError, Code

DIRECTORY = Path("/run/netns")


def resolve(text: str) -> Path:
    """The absolute path that is meant; nothing need be there (P-546).

    A bare name is one of /run/netns, unless there is only a file of that name here.
    """
    if not text:
        raise CniError(
            "NETNS is empty", code=Code.INVALID_NETNS, details="the path or the name of a namespace is wanted"
        )
    here = Path(os.path.normpath(Path.cwd() / text))
    if "/" in text or text in {".", ".."}:
        return here
    named = DIRECTORY / text
    return here if here.exists() and not named.exists() else named


def ensure(text: str, *, create: bool) -> Path:
    """The path of a namespace to attach, made if it is missing and that is asked. Raises CniError, code 8."""
    path = resolve(text)
    if path.exists():
        return path
    if create:
        from pycni.kernel.netns import named

        named.create(path)
    elif "/" not in text:
        raise CniError(
            f'there is no network namespace "{text}"',
            code=Code.INVALID_NETNS,
            details=f"{path} does not exist; --create-netns makes it, `ip netns list` shows those that there are",
        )
    return path


def container_id(path: Path) -> str:
    """The id that cnitool gives a namespace: it depends on the path as it is spelled."""
    return f"cnitool-{hashlib.sha512(os.fsencode(path)).digest()[:10].hex()}"
