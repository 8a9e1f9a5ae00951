"""The allow list of sysctls: an optional file with one regular expression per line."""

import re
from collections.abc import Iterable
from pathlib import Path

from pycni.sdk import CniError, ConfigError

PATH = Path("/etc/cni/tuning/allowlist.conf")

# The file has Go's syntax (RE2). These character classes and \z have other names in Python.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "digit": "0-9",
    "lower": "a-z",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CLASS = re.compile(r"\[:(\w+):\]")


def read() -> list[re.Pattern[str]] | None:
    """Return the expressions, or None if there is no file. Raise CniError if it cannot be read or compiled."""
    try:
        text = PATH.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CniError(f"cannot read the allow list of sysctls, {PATH}: {error}") from None
    return [_compiled(line.strip(), number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def check(keys: Iterable[str]) -> None:
    """Raise ConfigError for the first key that no expression matches. Keys are matched before IFNAME is replaced."""
    allowed = read()
    if allowed is None:
        return
    for key in keys:
        if not any(pattern.search(key) for pattern in allowed):
            only = " ".join(pattern.pattern for pattern in allowed)
            raise ConfigError(
                f"Sysctl {key} is not allowed. Only the following sysctls are allowed: [{only}]",
                details=f"to allow more sysctls, add them to {PATH}",
            )


def _compiled(line: str, number: int) -> re.Pattern[str]:
    translated = _CLASS.sub(lambda found: _CLASSES.get(found[1], found[0]), line).replace(r"\z", r"\Z")
    try:
        return re.compile(translated, re.ASCII)
    except re.error as error:
        raise CniError(f"{PATH}, line {number}: invalid regular expression {line!r}: {error}") from None
