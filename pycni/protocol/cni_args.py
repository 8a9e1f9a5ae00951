"""CNI_ARGS: KEY=VALUE pairs, separated by semicolons (P-190 to P-196)."""

from collections.abc import Iterable

from pycni.protocol.errors import CniError

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def parse(text: str, known: Iterable[str]) -> dict[str, str]:
    """The values of the `known` keys. Raises CniError for what a strict plugin refuses.

    Unknown keys are an error unless the pair `IgnoreUnknown=1` (or `true`) stands anywhere in the text.
    """
    wanted, values, unknown, ignore_unknown = set(known), {}, [], False
    for pair in text.split(";") if text else ():
        if pair.count("=") != 1:
            raise CniError(f'ARGS: invalid pair "{pair}"', details="CNI_ARGS is KEY=VALUE;KEY=VALUE")
        key, _, value = pair.partition("=")
        if key == "IgnoreUnknown":
            ignore_unknown = _boolean(pair, value)
        elif key in wanted:
            values[key] = value
        else:
            unknown.append(f'"{pair}"')
    if unknown and not ignore_unknown:
        raise CniError(
            f"ARGS: unknown args [{' '.join(unknown)}]", details="IgnoreUnknown=1 in CNI_ARGS lets unknown keys pass"
        )
    return values


def parse_leniently(text: str) -> dict[str, str]:
    """All pairs that can be understood; for DEL and GC, which must never fail on them."""
    pairs = (pair.partition("=") for pair in text.split(";"))
    return {key: value for key, equals, value in pairs if equals}


def _boolean(pair: str, value: str) -> bool:
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise CniError(
            f'ARGS: error parsing value of pair "{pair}": boolean unmarshal error: invalid input {value}'
        ) from None
