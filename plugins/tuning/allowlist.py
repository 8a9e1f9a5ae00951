"""Which sysctls the administrator allows: a regular expression a line, in a file that need not be there."""

import re
from collections.abc import Iterable
from pathlib import Path

from pycni.sdk import CniError, ConfigError

PATH = Path("/etc/cni/tuning/allowlist.conf")

# The file is written in Go's dialect (RE2); what Python spells in another way is translated.
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
    """The expressions; None, if there is no file. Raises CniError."""
    try:
        text = PATH.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CniError(f"cannot read the allowlist of sysctls, {PATH}: {error}") from None
    return [_compiled(line.strip(), number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def check(keys: Iterable[str]) -> None:
    """Raise CniError for the first key, as it is configured, that no expression is found in."""
    allowed = read()
    if allowed is None:
        return
    for key in keys:
        if not any(pattern.search(key) for pattern in allowed):
            only = " ".join(pattern.pattern for pattern in allowed)
            raise ConfigError(
                f"Sysctl {key} is not allowed. Only the following sysctls are allowed: [{only}]",
                details=f"the administrator allows more in {PATH}",
            )


def _compiled(line: str, number: int) -> re.Pattern[str]:
    translated = _CLASS.sub(lambda found: _CLASSES.get(found[1], found[0]), line).replace(r"\z", r"\Z")
    try:
        return re.compile(translated, re.ASCII)
    except re.error as error:
        raise CniError(f"{PATH}, line {number}: {line!r} is no regular expression: {error}") from None
