"""Parse CNI_ARGS: KEY=VALUE pairs, separated by semicolons.

SPEC section 2, Parameters; docs/reference/protocol.md#cni_args.
"""

from collections.abc import Iterable

from pycni.protocol.errors import CniError

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def parse(text: str, known: Iterable[str]) -> dict[str, str]:
    """Return the values of the `known` keys in `text`.

    Raises CniError, with the messages of the Go plugins, if a pair is malformed, or if there are other keys and no pair
    `IgnoreUnknown=1` (or `true`). Keys are compared exactly.
    """
    names, values, unknown, ignore_unknown = set(known), {}, [], False
    for pair in text.split(";") if text else ():
        if pair.count("=") != 1:
            raise CniError(f'ARGS: invalid pair "{pair}"', details="CNI_ARGS has the form KEY=VALUE;KEY=VALUE")
        key, _, value = pair.partition("=")
        if key == "IgnoreUnknown":
            ignore_unknown = _boolean(pair, value)
        elif key in names:
            values[key] = value
        else:
            unknown.append(f'"{pair}"')
    if unknown and not ignore_unknown:
        raise CniError(
            f"ARGS: unknown args [{' '.join(unknown)}]",
            details="add IgnoreUnknown=1 to CNI_ARGS to ignore unknown keys",
        )
    return values


def parse_leniently(text: str) -> dict[str, str]:
    """Return all well-formed pairs in `text`, for DEL, which must not fail because of a malformed argument."""
    pairs = (pair.partition("=") for pair in text.split(";"))
    return {key: value for key, equals, value in pairs if equals}


def _boolean(pair: str, value: str) -> bool:
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise CniError(
            f'ARGS: error parsing value of pair "{pair}": boolean unmarshal error: invalid input {value}'
        ) from None
