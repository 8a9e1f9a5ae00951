"""The JSON that CNI peers speak: strict on input, keys in any case, Go's escapes on output."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring
from typing import Any, NoReturn

_ESCAPED = "<>&\u2028\u2029"
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in _ESCAPED})
# Bytes of the environment that are no UTF-8 come as lone surrogates, which no UTF-8 text can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPECIAL = re.compile(f"[{_ESCAPED}\ud800-\udfff]")


def loads(data: bytes | str) -> Any:
    """Decode one JSON value. Raises ValueError for all that a strict reader refuses.

    Invalid UTF-8 becomes U+FFFD, the last of several equal keys wins and stands where it was written last.
    """
    text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
    if text.startswith("\ufeff"):
        raise ValueError("a byte order mark stands before the value")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value if text.isascii() and "\\u" not in text else _without_lone_surrogates(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        result = {}
        for key, value in pairs:
            result.pop(key, None)
            result[key] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


def select_members(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The members called `names` in any letter case (the last one wins); null members count as absent."""
    known = _spellings(tuple(names))
    result: dict[str, Any] = {}
    for key, value in document.items():
        name = known.get(key) or known.get(key.casefold())
        if name is not None and value is not None:
            result[name] = value
    return result


@cache
def _spellings(names: tuple[str, ...]) -> dict[str, str]:
    """The names by themselves, as nearly everybody writes them, and by what is the same in any letter case."""
    return {name: name for name in names} | {name.casefold(): name for name in names}


def dumps_indented(value: object) -> str:
    """As plugins print results and errors: four spaces, no newline at the end. Keys of objects are strings."""
    return _escaped(_indented(value, "\n"))


def _indented(value: object, margin: str) -> str:
    """What json.dumps makes with indent=4, in a fraction of the time; `margin` is what its lines begin with."""
    if isinstance(value, str):
        return encode_basestring(value)
    inner = f"{margin}    "
    if value and isinstance(value, dict):
        members = [f"{encode_basestring(key)}: {_indented(item, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(members)}{margin}}}"
    if value and isinstance(value, list | tuple):
        return f"[{inner}{f',{inner}'.join([_indented(item, inner) for item in value])}{margin}]"
    return json.dumps(value)


def dumps_compact(value: object, *, sort_keys: bool = False) -> str:
    """As runtimes write to plugins: one line, no blanks."""
    return _escaped(json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys))


def _escaped(text: str) -> str:
    if _SPECIAL.search(text) is None:
        return text
    return _SURROGATE.sub("\\\\ufffd", text.translate(_ESCAPES))
