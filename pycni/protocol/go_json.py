"""Decode and encode JSON as Go's encoding/json does, which CNI runtimes and plugins are written with.

See docs/reference/protocol.md#json-input and the sections after it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring
from typing import Any, NoReturn

_ESCAPED = "<>&\u2028\u2029"
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in _ESCAPED})
# Python represents bytes of the environment that are not UTF-8 as lone surrogates, which UTF-8 cannot encode.
_SURROGATE = "[\ud800-\udfff]"


def loads(data: bytes | str) -> Any:
    """Decode one JSON value.

    Invalid UTF-8 becomes U+FFFD. Of several equal keys the last one wins, at its own position. Raises ValueError for
    invalid JSON, including a byte order mark, NaN and Infinity, and for values nested too deeply.
    """
    text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
    if text.startswith("\ufeff"):
        raise ValueError("there is a byte order mark before the value")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
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
    raise ValueError(f"{name} is not valid JSON")


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


def select_members(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the members of `document` whose keys match `names` in any letter case, under the spelling in `names`.

    If several keys match a name, the last one wins. Members that are null count as absent.
    """
    known = _spellings(tuple(names))
    result: dict[str, Any] = {}
    for key, value in document.items():
        name = known.get(key) or known.get(key.casefold())
        if name is not None and value is not None:
            result[name] = value
    return result


@cache
def _spellings(names: tuple[str, ...]) -> dict[str, str]:
    """Return the names by their usual spelling and by their case-folded one."""
    return {name: name for name in names} | {name.casefold(): name for name in names}


def dumps_indented(value: object) -> str:
    """Return JSON as plugins print it: indented by four spaces, no newline at the end. Keys must be strings."""
    return _escaped(_indented(value, "\n"))


def _indented(value: object, margin: str) -> str:
    """Return the same as json.dumps with indent=4, which is much slower. `margin` is a newline and the indentation."""
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
    """Return JSON as runtimes write it to the stdin of plugins: one line without spaces."""
    return _escaped(json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys))


def _escaped(text: str) -> str:
    if text.isascii() and not ("<" in text or ">" in text or "&" in text):
        return text
    return re.sub(_SURROGATE, "\\\\ufffd", text.translate(_ESCAPES))
