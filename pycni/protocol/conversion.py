"""Read, convert and write results of every version of the specification.

Versions that share a format form a family. See docs/reference/protocol.md#result-formats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pycni.protocol import go_json, version
from pycni.protocol.legacy import LegacyResult
from pycni.protocol.result import Document, Result, is_v1

_FAMILIES = (("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0"))


@dataclass(frozen=True, slots=True)
class VersionedResult:
    """A result together with the version of the document that it was read from."""

    cni_version: str
    content: Result | LegacyResult

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Parse a result in the format of its own cniVersion; without one it is 0.1.0.

        Raises ValueError if the document is not a result of that version.
        """
        cni_version = _version_in(document) or version.DEFAULT
        _family(cni_version)
        return cls._read(document, cni_version)

    @classmethod
    def parse_as(cls, document: Mapping[str, Any], cni_version: str) -> Self:
        """Parse a prevResult found in a configuration of version `cni_version`.

        Without a cniVersion of its own it has the version of the configuration. Raises ValueError if its version is of
        another family, or if the document is not a result (docs/reference/protocol.md#previous-result).
        """
        family, own = _family(cni_version), _version_in(document) or cni_version or version.DEFAULT
        if own not in family:
            raise ValueError(f'result type supports [{" ".join(family)}] but unmarshalled CNIVersion is "{own}"')
        return cls._read(_restore_integers(document), own)

    @classmethod
    def _read(cls, document: Mapping[str, Any], cni_version: str) -> Self:
        if cni_version in _FAMILIES[0]:
            return cls(cni_version, LegacyResult.parse(document))
        return cls(cni_version, Result.parse(document, cni_version))

    @property
    def result(self) -> Result:
        """The result in the format of 1.x, which plugins work with."""
        content = self.content.upgrade() if isinstance(self.content, LegacyResult) else self.content
        return content.without_declared_versions()

    def to_document(self, target: str) -> Document:
        """Return the result as a JSON document of version `target`.

        Raises ValueError if that version cannot express the result, for example if 0.2.0 is asked for a result without
        addresses (docs/reference/protocol.md#result-conversion).
        """
        target = target or version.DEFAULT
        if target not in version.ALL:
            raise ValueError(f"no converter for CNI result version {self.cni_version} to {target}")
        content = self.content
        if target in _FAMILIES[0]:
            if isinstance(content, Result):
                content = LegacyResult.downgrade(content)
        elif isinstance(content, LegacyResult):
            content = content.upgrade()
        if isinstance(content, Result) and is_v1(target):
            content = content.without_declared_versions()
        return content.to_document(target)


def parse_plugin_result(stdout: bytes | str, cni_version: str) -> VersionedResult:
    """Parse the stdout of a plugin whose ADD was called with a configuration of version `cni_version`.

    Raises ValueError if it is not a result (docs/reference/protocol.md#reading-results).
    """
    try:
        document = go_json.loads(stdout)
    except ValueError as error:
        cause = str(error) if stdout.strip() else "unexpected end of JSON input"
        raise ValueError(f"failed to unmarshal raw result: {cause}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ValueError("failed to unmarshal raw result: it must be a JSON object")
    own = document.get("cniVersion")
    if not isinstance(own, str) or not own:
        # The version is set under the exact key. Keys that differ in letter case would make it ambiguous.
        document = {key: value for key, value in document.items() if key.casefold() != "cniversion"}
        document["cniVersion"] = cni_version or version.DEFAULT
    return VersionedResult.parse(document)


def encode_result(result: Result, cni_version: str) -> Document:
    """Return a result as a JSON document of `cni_version`. Raises ValueError if that version cannot express it."""
    return VersionedResult(version.NEWEST, result).to_document(cni_version)


def to_versioned(result: Result, cni_version: str) -> VersionedResult:
    """Return the result that a reader of the document `encode_result` would get, without encoding it if possible.

    Raises ValueError if `cni_version` cannot express the result.
    """
    if is_v1(cni_version) and cni_version in version.ALL and result.has_address_types:
        return VersionedResult(cni_version, result)
    return VersionedResult.parse(encode_result(result, cni_version))


def _restore_integers(value: Any) -> Any:
    """Return the value with 1.0 replaced by 1: libcni decodes every number of a prevResult as floating point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [item if isinstance(item, str) else _restore_integers(item) for item in value]
    if isinstance(value, Mapping):
        return {key: item if isinstance(item, str) else _restore_integers(item) for key, item in value.items()}
    return value


def _version_in(document: object) -> str:
    if not isinstance(document, Mapping):
        raise ValueError(f"a result must be an object, not {go_json.dumps_compact(document)[:40]}")
    cni_version = go_json.select_members(document, ("cniVersion",)).get("cniVersion", "")
    if not isinstance(cni_version, str):
        raise ValueError(f"cniVersion must be a string, not {go_json.dumps_compact(cni_version)}")
    return cni_version


def _family(cni_version: str) -> tuple[str, ...]:
    for family in _FAMILIES:
        if (cni_version or version.DEFAULT) in family:
            return family
    raise ValueError(f'unsupported CNI result version "{cni_version}"')
