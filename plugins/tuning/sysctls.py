"""Sysctls as configurations name them, and the paths under /proc/sys/net that they mean."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pycni.sdk import ConfigError

_PLACEHOLDER = "IFNAME"


def paths(sysctls: Mapping[str, str], ifname: str) -> dict[str, str]:
    """The values by the paths of their files under /proc/sys/net. Raises ConfigError for a key that is not in net.

    The interface's name is put in after the key was taken apart: a name may have dots of its own (R-44).
    """
    return {_path(key, ifname): value for key, value in sysctls.items()}


def _path(key: str, ifname: str) -> str:
    root, *parts = [part for part in re.split(r"[./]", key) if part] or [""]
    if root != "net" or not parts:
        raise ConfigError(
            f'invalid net sysctl key: "{key}"',
            details="only sysctls of the network can be tuned; their keys begin with net.",
        )
    first = next((number for number, part in enumerate(parts) if _PLACEHOLDER in part), None)
    if first is not None:
        parts[first] = parts[first].replace(_PLACEHOLDER, ifname, 1)
    return "/".join(parts)


def refuse_duplicates(stdin: bytes) -> None:
    """Raise ConfigError, if a sysctl is configured twice: a decoded configuration has but one of equal keys."""
    text = stdin.decode(errors="replace")
    document = json.loads(text, object_pairs_hook=tuple)  # objects stay pairs of keys and values
    for place in (("sysctl",), ("args", "cni", "sysctl")):
        for sysctls in _members(document, place):
            keys = Counter(key for key, _ in sysctls) if isinstance(sysctls, tuple) else Counter()
            if twice := [key for key, count in keys.items() if count > 1]:
                raise ConfigError(f"duplicated sysctl keys are not allowed: {twice[0]}")


def _members(document: Any, place: tuple[str, ...]) -> list[Any]:
    """What stands at this place of the document; several things, if a key on the way is there several times."""
    found = [document]
    for name in place:
        objects = [item for item in found if isinstance(item, tuple)]
        found = [value for pairs in objects for key, value in pairs if key.casefold() == name]
    return found
