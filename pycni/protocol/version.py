"""Versions of the specification: parsing, comparison and negotiation.

See docs/reference/protocol.md#version-negotiation.
"""

import re

from pycni.protocol import go_json
from pycni.protocol.errors import CniError, Code

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEFAULT = "0.1.0"  # of a configuration without cniVersion
NEWEST = ALL[-1]
INTRODUCED_IN = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_NUMBER = re.compile(r"[+-]?[0-9]+")
_MAX = 2**63 - 1

Version = tuple[int, int, int]


def parse(text: str) -> Version:
    """Return the version as (major, minor, micro). Missing parts are 0, the empty string is 0.1.0.

    Raises ValueError.
    """
    parts = (text or DEFAULT).split(".")
    if len(parts) > 3:
        raise ValueError(f'invalid version "{text}": too many parts')
    if bad := [part for part in parts if not _NUMBER.fullmatch(part) or abs(int(part)) > _MAX]:
        raise ValueError(f'invalid version "{text}": "{bad[0]}" is not a number')
    major, minor, micro = ([int(part) for part in parts] + [0, 0])[:3]
    return major, minor, micro


def at_least(text: str, minimum: str) -> bool:
    """Return whether version `text` is `minimum` or newer. Raises ValueError if either is not a version."""
    return parse(text) >= parse(minimum)


def require(command: str, cni_version: str, supported: tuple[str, ...]) -> None:
    """Raise CniError, code 1, unless configuration and plugin have a version that allows the verb `command`.

    `supported` are the versions of the plugin. A `cni_version` that is not a version is code 6.
    """
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
    """Return what VERSION prints: one line of JSON (SPEC section 5, VERSION)."""
    return go_json.dumps_compact({"cniVersion": NEWEST, "supportedVersions": list(supported)}) + "\n"


def decode_reply(text: bytes | str) -> tuple[str, ...]:
    """Return the supportedVersions in the reply of a plugin to VERSION.

    Raises CniError, code 6, if it is not a valid reply (docs/reference/protocol.md#version).
    """
    try:
        document = go_json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        fields = go_json.select_members(document, ("cniVersion", "supportedVersions"))
        cni_version, supported = fields.get("cniVersion", ""), fields.get("supportedVersions", [])
        if not isinstance(cni_version, str) or not _is_list_of_strings(supported):
            raise ValueError("cniVersion must be a string, and supportedVersions a list of strings")
        if not cni_version:
            raise ValueError("missing field cniVersion")
        if not supported and cni_version != "0.2.0":
            raise ValueError("missing field supportedVersions")
    except ValueError as error:
        raise CniError(f"decoding version info: {error}", code=Code.DECODING_FAILURE) from None
    return tuple(supported) or ("0.1.0", "0.2.0")


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
