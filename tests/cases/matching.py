"""Compare an observation with the expectation of a case: a subset match with a few operators.

Objects: every expected key must match, others are ignored. Lists: the same length, element by element. An object with
one key that starts with `$` is an operator: $any, $re, $type, $len, $contains, $exact, $oneof, $absent.
"""

import base64
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

_TYPES = {"str": str, "int": int, "list": list, "dict": dict, "bool": bool}


class MismatchError(Exception):
    """The first difference between expectation and observation."""


def match(expected: Any, got: Any, path: str = "$") -> None:
    """Raise MismatchError unless `got` matches `expected`."""
    if isinstance(expected, dict):
        if len(expected) == 1 and next(iter(expected)).startswith("$"):
            _operator(*next(iter(expected.items())), got, path)
        else:
            _match_object(expected, got, path)
    elif isinstance(expected, list):
        if not isinstance(got, list) or len(expected) != len(got):
            raise MismatchError(f"{path}: expected {shortened_json(expected)}, got {shortened_json(got)}")
        for i, (want, have) in enumerate(zip(expected, got, strict=True)):
            match(want, have, f"{path}[{i}]")
    elif expected != got or isinstance(expected, bool) != isinstance(got, bool):
        raise MismatchError(f"{path}: expected {shortened_json(expected)}, got {shortened_json(got)}")


def matches(expected: Any, got: Any, path: str = "$") -> bool:
    """Return whether `got` matches `expected`."""
    try:
        match(expected, got, path)
    except MismatchError:
        return False
    return True


def documents(text: str) -> list[Any]:
    """Return all JSON documents of a text, concatenated or separated by white space. Raise ValueError."""
    decoder, found, rest = json.JSONDecoder(), [], text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


def shortened_json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 400 else text[:400] + "..."


def _match_object(expected: Any, got: Any, path: str) -> None:
    if not isinstance(got, dict):
        raise MismatchError(f"{path}: expected an object, got {shortened_json(got)}")
    for key, want in expected.items():
        if want == {"$absent": True}:
            if key in got:
                raise MismatchError(f"{path}.{key}: must be absent, is {shortened_json(got[key])}")
        elif key not in got:
            raise MismatchError(f"{path}.{key}: missing in {shortened_json(got)}")
        else:
            match(want, got[key], f"{path}.{key}")


def _operator(name: str, argument: Any, got: Any, path: str) -> None:
    holds = {
        "$any": lambda: True,
        "$re": lambda: isinstance(got, str) and re.search(argument, got),
        "$type": lambda: isinstance(got, _TYPES[argument]),
        "$len": lambda: hasattr(got, "__len__") and len(got) == argument,
        "$contains": lambda: (
            isinstance(got, list) and all(any(matches(want, item) for item in got) for want in argument)
        ),
        "$exact": lambda: got == argument,
        "$oneof": lambda: any(matches(want, got, path) for want in argument),
    }
    if not holds[name]():
        raise MismatchError(f"{path}: {shortened_json(got)} fails {name} {shortened_json(argument)}")


def check(expected: Any, observed: dict[str, Any]) -> None:
    """Raise MismatchError unless an observed run (exit, stdout, stderr, calls) matches the case's expectation."""
    _check_exit(expected, observed["exit"])
    _check_output(expected, observed["stdout"])
    if expected.get("stderr_empty") and observed["stderr"].strip():
        raise MismatchError(f"stderr should be empty, is {observed['stderr'][:300]!r}")
    _check_pattern("stderr", expected.get("stderr_re"), observed["stderr"])
    if "calls" in expected:
        _check_calls(expected["calls"], observed["calls"])
    for path, want in (expected.get("files") or {}).items():
        _check_file(Path(path), want)


def _check_exit(expected: Any, status: int) -> None:
    want = expected.get("exit", status)
    accepted = want if isinstance(want, list) else [want]
    if status not in accepted and not (want == "nonzero" and status != 0):
        raise MismatchError(f"exit status {status}, expected {want}")


def _check_output(expected: Any, out: str) -> None:
    if expected.get("stdout_empty") and out.strip():
        raise MismatchError(f"stdout should be empty, is {out[:300]!r}")
    _check_pattern("stdout", expected.get("stdout_re"), out)
    if "stdout_exact" in expected and out != expected["stdout_exact"]:
        raise MismatchError(f"stdout {out[:300]!r} is not {expected['stdout_exact']!r}")
    if not expected.keys() & {"json", "json_docs"}:
        return
    try:
        found = documents(out)
    except ValueError as error:
        raise MismatchError(f"stdout is not JSON ({error}): {out[:300]!r}") from None
    if "json" in expected:
        if len(found) != 1:
            raise MismatchError(f"stdout holds {len(found)} JSON documents, expected 1: {out[:300]!r}")
        match(expected["json"], found[0])
    if "json_docs" in expected:
        match(expected["json_docs"], found)


def _check_pattern(stream: str, pattern: str | None, text: str) -> None:
    if pattern is not None and not re.search(pattern, text, re.DOTALL):
        raise MismatchError(f"{stream} {text[:300]!r} does not match /{pattern}/")


def _check_calls(expected: Any, calls: list[dict[str, Any]]) -> None:
    if len(calls) != len(expected):
        wanted = [f"{call.get('type')} {call.get('command')}" for call in expected]
        actual = [f"{call['type']} {call['command']}" for call in calls]
        raise MismatchError(f"recorder calls: expected {wanted}, got {actual}")
    for i, (want, call) in enumerate(zip(expected, calls, strict=True)):
        others = {key: value for key, value in want.items() if key not in {"stdin", "stdin_exact"}}
        if "stdin_exact" in want and call["stdin"] != want["stdin_exact"]:
            raise MismatchError(f"call[{i}].stdin is {call['stdin']!r}, expected {want['stdin_exact']!r}")
        if "stdin" in want:
            try:
                stdin = json.loads(call["stdin"])
            except ValueError:
                raise MismatchError(f"call[{i}].stdin is not JSON: {call['stdin']!r}") from None
            match(want["stdin"], stdin, f"call[{i}].stdin")
        match(others, call, f"call[{i}]")


def _check_file(path: Path, want: Any) -> None:
    exists = os.path.lexists(path)
    if want == "absent":
        if exists:
            raise MismatchError(f"{path} exists")
        return
    if not exists:
        raise MismatchError(f"{path} does not exist")
    mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
    if want.get("mode", mode) != mode:
        raise MismatchError(f"{path} has mode {mode}, expected {want['mode']}")
    if "json" in want:
        match(want["json"], json.loads(path.read_text()), str(path))
    if "b64_config" in want:
        config = base64.b64decode(json.loads(path.read_text())["config"]).decode()
        if config != want["b64_config"]:
            raise MismatchError(f"{path}: decoded config is {config!r}")
