"""A throwaway host: a process in namespaces of its own, in which networks can be tried without a trace."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pycni.protocol.errors import CniError

_STATE = ("/var/lib/cni", "/run/cni")  # where plugins keep things beyond a call
_libc = ctypes.CDLL(None, use_errno=True)


def enter(command: Sequence[str]) -> NoReturn:
    """Become `command` in new network and mount namespaces; who is not root becomes root of a user namespace."""
    as_root = ["--map-root-user"] if os.geteuid() != 0 else []
    unshare = ["unshare", *as_root, "--net", "--mount", "--propagation", "private", "--", *command]
    try:
        os.execvp(unshare[0], unshare)  # noqa: S606 - there is no shell
    except OSError as error:
        raise CniError(
            f"cannot run unshare: {(error.strerror or '').lower()}", details="it comes with Debian's util-linux"
        ) from None


def hide_state() -> None:
    """Cover the directories where plugins keep state by empty ones, for this mount namespace. Raises CniError."""
    for place in map(Path, _STATE):
        target = place
        while not target.is_dir():
            target = target.parent
        if _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", 0, b"mode=755") != 0:
            cause = os.strerror(ctypes.get_errno()).lower()
            raise CniError(f"cannot hide {target} from what is tried: {cause}")
        place.mkdir(parents=True, exist_ok=True)
