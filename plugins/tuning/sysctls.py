"""Sysctl keys of the configuration, and their paths under /proc/sys/net."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pycni.sdk import ConfigError

_PLACEHOLDER = "IFNAME"


def paths(sysctls: Mapping[str, str], ifname: str) -> dict[str, str]:
    """Return the values by their paths below /proc/sys/net. Raise ConfigError for a key that does not begin with `net`.

    IFNAME is replaced after the key is split, because an interface name may contain dots
    (docs/reference/plugins.md#tuning).
    """
    return {_path(key, ifname): value for key, value in sysctls.items()}


def _path(key: str, ifname: str) -> str:
    root, *parts = [part for part in re.split(r"[./]", key) if part] or [""]
    if root != "net" or not parts:
        raise ConfigError(
            f'invalid net sysctl key: "{key}"',
            details="use a key that begins with net., such as net.core.somaxconn",
        )
    first = next((number for number, part in enumerate(parts) if _PLACEHOLDER in part), None)
    if first is not None:
        parts[first] = parts[first].replace(_PLACEHOLDER, ifname, 1)
    return "/".join(parts)


def refuse_duplicates(stdin: bytes) -> None:
    """Raise ConfigError if a sysctl key occurs twice. It reads `stdin`, because decoding drops duplicate keys."""
    text = stdin.decode(errors="replace")
    document = json.loads(text, object_pairs_hook=tuple)  # objects become tuples of key-value pairs
    for path in (("sysctl",), ("args", "cni", "sysctl")):
        for sysctls in _values_at(document, path):
            keys = Counter(key for key, _ in sysctls) if isinstance(sysctls, tuple) else Counter()
            if duplicates := [key for key, count in keys.items() if count > 1]:
                raise ConfigError(f"duplicated sysctl keys are not allowed: {duplicates[0]}")


def _values_at(document: Any, path: tuple[str, ...]) -> list[Any]:
    """Return the values at the path: more than one if a key on the path occurs several times."""
    found = [document]
    for name in path:
        objects = [item for item in found if isinstance(item, tuple)]
        found = [value for pairs in objects for key, value in pairs if key.casefold() == name]
    return found
