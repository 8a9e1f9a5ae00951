"""Versions of the specification: which exist, how they compare, which verb needs which (SPEC section 1)."""

import re

from pycni.protocol import go_json
from pycni.protocol.errors import CniError, Code

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEFAULT = "0.1.0"  # what a configuration without cniVersion means
NEWEST = ALL[-1]
INTRODUCED_IN = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_NUMBER = re.compile(r"[+-]?[0-9]+")
_MAX = 2**63 - 1

Version = tuple[int, int, int]


def parse(text: str) -> Version:
    """Three numbers for the text; missing ones are 0, the empty text is 0.1.0. Raises ValueError."""
    parts = (text or DEFAULT).split(".")
    if len(parts) > 3:
        raise ValueError(f'invalid version "{text}": too many parts')
    if bad := [part for part in parts if not _NUMBER.fullmatch(part) or abs(int(part)) > _MAX]:
        raise ValueError(f'invalid version "{text}": "{bad[0]}" is not a number')
    major, minor, micro = ([int(part) for part in parts] + [0, 0])[:3]
    return major, minor, micro


def at_least(text: str, minimum: str) -> bool:
    """Whether version `text` is `minimum` or newer. Raises ValueError if either is no version."""
    return parse(text) >= parse(minimum)


def require(command: str, cni_version: str, supported: tuple[str, ...]) -> None:
    """Refuse a verb that the configuration's version or the plugin's versions do not allow (P-090)."""
    try:
        if command in INTRODUCED_IN:
            if not at_least(cni_version, INTRODUCED_IN[command]):
                raise _incompatible(f"config version does not allow {command}", cni_version, supported)
            if not any(at_least(version, cni_version) for version in supported):
                raise _incompatible(f"plugin version does not allow {command}", cni_version, supported)
    except ValueError as error:
        raise CniError(f"decoding version from network config: {error}", code=Code.DECODING_FAILURE) from None
    if cni_version not in supported:
        raise _incompatible("incompatible CNI versions", cni_version, supported)


def _incompatible(msg: str, cni_version: str, supported: tuple[str, ...]) -> CniError:
    versions = " ".join(f'"{version}"' for version in supported)
    return CniError(
        msg, code=Code.INCOMPATIBLE_VERSION, details=f'config is "{cni_version}", plugin supports [{versions}]'
    )


def encode_reply(supported: tuple[str, ...]) -> str:
    """What VERSION prints: one line of JSON."""
    return go_json.dumps_compact({"cniVersion": NEWEST, "supportedVersions": list(supported)}) + "\n"


def decode_reply(text: bytes | str) -> tuple[str, ...]:
    """The supportedVersions of a plugin's VERSION reply (P-261). Raises CniError, code 6."""
    try:
        document = go_json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        fields = go_json.select_members(document, ("cniVersion", "supportedVersions"))
        cni_version, supported = fields.get("cniVersion", ""), fields.get("supportedVersions", [])
        if not isinstance(cni_version, str) or not _is_list_of_texts(supported):
            raise ValueError("cniVersion is a string, supportedVersions a list of strings")
        if not cni_version:
            raise ValueError("missing field cniVersion")
        if not supported and cni_version != "0.2.0":
            raise ValueError("missing field supportedVersions")
    except ValueError as error:
        raise CniError(f"decoding version info: {error}", code=Code.DECODING_FAILURE) from None
    return tuple(supported) or ("0.1.0", "0.2.0")


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
