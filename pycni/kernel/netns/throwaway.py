"""Throwaway namespaces: a process with its own network and mount namespace, in which networks can be tried."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pycni.kernel.netns.handle import c_library
from pycni.protocol.errors import CniError

_STATE = ("/var/lib/cni", "/run/cni", "/run/flannel")  # state directories of the plugins
_BIND, _RECURSIVE = 4096, 16384  # MS_BIND, MS_REC


def enter(command: Sequence[str]) -> NoReturn:
    """Replace this process by `command` in new network and mount namespaces.

    If the caller is not root, the command runs as root of a new user namespace. Raise CniError if `unshare` is missing.
    """
    as_root = ["--map-root-user"] if os.geteuid() != 0 else []
    unshare = ["unshare", *as_root, "--net", "--mount", "--propagation", "private", "--", *command]
    try:
        os.execvp(unshare[0], unshare)  # noqa: S606 - there is no shell
    except OSError as error:
        raise CniError(
            f"cannot run unshare: {(error.strerror or '').lower()}", details="install Debian's package util-linux"
        ) from None


def hide_state() -> None:
    """Cover the state directories of the plugins with empty ones in this mount namespace. Raise CniError.

    A directory that does not exist is created on a tmpfs over its parent; the parent's other entries stay visible.
    """
    for place in map(Path, _STATE):
        if not place.is_dir():
            _cover_parent(place)
        else:
            _mount(b"tmpfs", place, b"tmpfs", 0, b"mode=755")


def _cover_parent(place: Path) -> None:
    parent = place.parent
    while not parent.is_dir():
        parent = parent.parent
    original = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = [entry.name for entry in parent.iterdir()]
        _mount(b"tmpfs", parent, b"tmpfs", 0, b"mode=755")
        for name in names:
            _bind_entry(Path(f"/proc/self/fd/{original}/{name}"), parent / name)
    finally:
        os.close(original)
    place.mkdir(parents=True, exist_ok=True)


def _bind_entry(entry: Path, target: Path) -> None:
    if entry.is_symlink():
        target.symlink_to(entry.readlink())
        return
    if entry.is_dir():
        target.mkdir()
    else:
        target.touch()
    _mount(os.fsencode(entry), target, b"none", _BIND | _RECURSIVE, None)


def _mount(source: bytes, target: Path, kind: bytes, flags: int, options: bytes | None) -> None:
    if c_library().mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), options) != 0:
        cause = os.strerror(ctypes.get_errno()).lower()
        raise CniError(f"cannot mount over {target}, to hide the plugins' state: {cause}")
