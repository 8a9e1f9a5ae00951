"""The attachment cache: one file per attachment with the configuration and the result of its ADD.

Format and location are those of libcni; libcni and pycni read each other's entries. In addition, pycni replaces an
entry atomically, validates every name before it becomes part of a path, and moves an unreadable entry to
`results.corrupt`.
"""

import base64
import binascii
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pycni.protocol import go_json, names
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError, Code
from pycni.runtime.configuration import NetworkConfig
from pycni.runtime.parameters import AttachmentId, RuntimeConf

DEFAULT_DIRECTORY = "/var/lib/cni"
_KIND = "cniCacheV1"
_KEYS = (
    *("kind", "containerId", "config", "ifName", "networkName", "netns"),
    *("cniArgs", "capabilityArgs", "result"),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedAttachment:
    """A cache entry: the parameters, the configuration list and the result of one ADD."""

    network: str
    parameters: RuntimeConf
    config: bytes = field(default=b"", repr=False)  # the configuration list given to ADD
    result: dict[str, Any] | None = field(default=None, repr=False)  # in the cniVersion of the plugin that returned it
    file: Path | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> AttachmentId:
        """The container id and interface name."""
        return self.parameters.id


class UnreadableEntryError(CniError):
    """A cache entry exists but cannot be parsed."""


class Cache:
    """The cache in `directory`: entries in `results`, unreadable entries in `results.corrupt`."""

    def __init__(self, directory: str | os.PathLike[str] = DEFAULT_DIRECTORY) -> None:
        self.directory = Path(directory)
        self.results = self.directory / "results"
        self.corrupt = self.directory / "results.corrupt"  # not inside `results`, because libcni lists every file there

    def store(self, network: NetworkConfig, parameters: RuntimeConf, result: VersionedResult | None) -> None:
        """Write the entry of an attachment; an older entry is replaced. Raise CniError, code 5, on failure."""
        target = self._file(network.name, parameters)
        text = go_json.dumps_compact(_document(network, parameters, result))
        try:
            self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(target, text.encode(), scratch=self.directory)
        except OSError as error:
            raise CniError(f"cannot write {target}: {error.strerror}", code=Code.IO_FAILURE) from None

    def entry(self, network: str, parameters: RuntimeConf) -> CachedAttachment | None:
        """Return the entry of an attachment, or None if there is none.

        Raise UnreadableEntryError if it cannot be parsed, and CniError if a name is not valid in a path.
        """
        file = self._file(network, parameters)
        try:
            return _parse(file)
        except (OSError, ValueError):
            return _legacy(file, network, parameters)

    def result(self, network: str, parameters: RuntimeConf, cni_version: str) -> dict[str, Any] | None:
        """Return the cached result of ADD, converted to `cni_version`; None if there is none.

        Raise UnreadableEntryError if the entry cannot be parsed, and CniError if the result cannot be expressed in
        `cni_version`.
        """
        entry = self.entry(network, parameters)
        if entry is None or entry.result is None:
            return None
        try:
            parsed = VersionedResult.parse(entry.result)
        except ValueError as error:
            raise UnreadableEntryError(f"{entry.file}: {error}") from None
        try:
            return parsed.to_document(cni_version)
        except ValueError as error:
            raise CniError(f'failed to convert cached result to config version "{cni_version}": {error}') from None

    def config(self, network: str, parameters: RuntimeConf) -> tuple[bytes, RuntimeConf] | None:
        """Return the configuration list of ADD, and `parameters` with the CNI_ARGS and capability arguments of ADD.

        Return None if there is no entry. Raise CniError.
        """
        file = self._file(network, parameters)
        try:
            entry = _parse(file)
        except OSError:
            return None
        except ValueError as error:
            raise UnreadableEntryError(f'read cached network "{network}" config {error}') from None
        cached = entry.parameters
        return entry.config, replace(
            parameters, args=cached.args or parameters.args, capability_args=cached.capability_args
        )

    def attachments(self, container_id: str = "") -> list[CachedAttachment]:
        """Return all entries, or those of one container, sorted by file name. Raise CniError, code 5."""
        try:
            files = sorted(self.results.iterdir(), key=lambda file: os.fsencode(file.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(f"cannot list {self.results}: {error.strerror}", code=Code.IO_FAILURE) from None
        if container_id:
            files = [file for file in files if file.name.find(f"-{container_id}-") > 0]
        found = list(_readable(files))
        return [entry for entry in found if container_id in {"", entry.parameters.container_id}]

    def remove(self, network: str, parameters: RuntimeConf) -> None:
        """Delete the entry of an attachment, if there is one. Raise CniError if a name is not valid in a path."""
        _unlink(self._file(network, parameters))

    def set_aside(self, network: str, parameters: RuntimeConf) -> Path:
        """Move an unreadable entry to `results.corrupt` for inspection; return its new path."""
        file = self._file(network, parameters)
        moved = self.corrupt / file.name
        try:
            self.corrupt.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.replace(moved)
        except OSError:
            _unlink(file)
        return moved

    def _file(self, network: str, parameters: RuntimeConf) -> Path:
        # An unchecked id could contain ../ and lead outside the directory.
        try:
            names.check_network_name(network)
            parameters.check()
        except CniError as error:
            raise CniError(
                f'cache file path requires network name ("{network}"), container ID ("{parameters.container_id}"), '
                f'and interface name ("{parameters.ifname}")',
                code=error.code,
                details=str(error),
            ) from None
        return self.results / f"{network}-{parameters.container_id}-{parameters.ifname}"


def _document(network: NetworkConfig, parameters: RuntimeConf, result: VersionedResult | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": _KIND,
        "containerId": parameters.container_id,
        "config": base64.b64encode(network.raw).decode(),
        "ifName": parameters.ifname,
        "networkName": network.name,
        "netns": parameters.netns,
        "cniArgs": [list(pair) for pair in parameters.args],
        "capabilityArgs": go_json.loads(go_json.dumps_compact(dict(parameters.capability_args), sort_keys=True)),
        "result": result
        and go_json.loads(go_json.dumps_compact(result.to_document(result.cni_version), sort_keys=True)),
    }
    return {key: value for key, value in document.items() if value or key in {"containerId", "config", "ifName"}}


def _parse(file: Path) -> CachedAttachment:
    """Read an entry. Raise OSError, and ValueError if it cannot be parsed."""
    document = go_json.loads(file.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    known = go_json.select_members(document, _KEYS)
    if known.get("kind") != _KIND:
        raise ValueError(f"has wrong kind: {known.get('kind', '')}")
    result, args, capability_args = known.get("result"), known.get("cniArgs", []), known.get("capabilityArgs", {})
    texts = [known.get(key, "") for key in ("networkName", "containerId", "ifName", "netns", "config")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(capability_args, dict):
        raise ValueError("has a member of the wrong type")
    if not (result is None or isinstance(result, dict)) or not _are_pairs(args):
        raise ValueError("has a member of the wrong type")
    network, container_id, ifname, netns, config = texts
    try:
        return CachedAttachment(
            network=network,
            parameters=RuntimeConf(container_id, netns, ifname, tuple((k, v) for k, v in args), capability_args),
            config=base64.b64decode(config, validate=True),
            result=result,
            file=file,
        )
    except (CniError, binascii.Error) as error:
        raise ValueError(str(error)) from None


def _legacy(file: Path, network: str, parameters: RuntimeConf) -> CachedAttachment | None:
    """Return an entry that holds only the result, as libcni before 0.8 wrote it; None if there is no file."""
    try:
        document = go_json.loads(file.read_bytes())
    except OSError:
        return None
    except ValueError as error:
        raise UnreadableEntryError(f"{file}: {error}") from None
    if not isinstance(document, dict) or go_json.select_members(document, ("kind",)):
        raise UnreadableEntryError(f"{file} is not a cache entry")
    return CachedAttachment(network, parameters, result=document, file=file)


def _readable(files: list[Path]) -> Iterator[CachedAttachment]:
    for file in files:
        try:
            entry = _parse(file)
        except (OSError, ValueError) as error:
            log.debug("%s is not a cache entry: %s", file, error)
            continue
        if entry.network and entry.parameters.ifname:
            yield entry


def _replace(target: Path, content: bytes, scratch: Path) -> None:
    descriptor, name = tempfile.mkstemp(
        prefix=".results-", dir=scratch
    )  # outside `results`, because libcni lists every file there
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        _unlink(Path(name))
        raise


def _unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", file, error.strerror)


def _are_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in value
    )
