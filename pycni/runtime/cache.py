"""The cache of attachments: what ADD was asked and what it answered, one file each, in libcni's format and place.

libcni and pycni read each other's entries (P-475 to P-483). Beyond libcni, an entry is replaced whole or not at all,
no path is made of a name that has not been checked, and an entry that cannot be read is set aside rather than lost.
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
    """An attachment as the cache knows it."""

    network: str
    parameters: RuntimeConf
    config: bytes = field(default=b"", repr=False)  # the configuration list of ADD
    result: dict[str, Any] | None = field(default=None, repr=False)  # in the version of the plugin that gave it
    file: Path | None = field(default=None, repr=False, compare=False)

    @property
    def id(self) -> AttachmentId:
        """What identifies it."""
        return self.parameters.id


class UnreadableEntryError(CniError):
    """There is a cache entry, and it cannot be understood."""


class Cache:
    """The entries below `directory`, in its `results`; what could not be read is kept in `results.corrupt`."""

    def __init__(self, directory: str | os.PathLike[str] = DEFAULT_DIRECTORY) -> None:
        self.directory = Path(directory)
        self.results = self.directory / "results"
        self.corrupt = self.directory / "results.corrupt"  # beside it: libcni lists all that lies in results

    def store(self, network: NetworkConfig, parameters: RuntimeConf, result: VersionedResult | None) -> None:
        """Write the entry of an attachment, in place of any older one. Raises CniError."""
        target = self._file(network.name, parameters)
        text = go_json.dumps_compact(_document(network, parameters, result))
        try:
            self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(target, text.encode(), scratch=self.directory)
        except OSError as error:
            raise CniError(f"cannot write {target}: {error.strerror}", code=Code.IO_FAILURE) from None

    def entry(self, network: str, parameters: RuntimeConf) -> CachedAttachment | None:
        """The entry of an attachment, None if there is none.

        Raises UnreadableEntryError, and CniError for names of which no path may be made.
        """
        file = self._file(network, parameters)
        try:
            return _parse(file)
        except (OSError, ValueError):
            return _legacy(file, network, parameters)

    def result(self, network: str, parameters: RuntimeConf, cni_version: str) -> dict[str, Any] | None:
        """The result of ADD as a document of `cni_version`; None if none is known (P-478, P-479).

        Raises UnreadableEntryError, and CniError for a result that this version cannot say.
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
        """The configuration list of ADD, and the parameters with the arguments of ADD (P-482). Raises CniError."""
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
        """Everything attached, or all of one container, in the order of the file names (P-481). Raises CniError."""
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
        """Forget an attachment; one that is not known is forgotten already. Raises CniError for bad names."""
        _unlink(self._file(network, parameters))

    def set_aside(self, network: str, parameters: RuntimeConf) -> Path:
        """Move an entry that cannot be read out of everybody's way, for a person to look at; returns where to."""
        file = self._file(network, parameters)
        kept = self.corrupt / file.name
        try:
            self.corrupt.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.replace(kept)
        except OSError:
            _unlink(file)
        return kept

    def _file(self, network: str, parameters: RuntimeConf) -> Path:
        # No path is made of an id that has not been checked: it might lead out of the directory (P-483).
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
    """Read an entry. Raises OSError and ValueError."""
    document = go_json.loads(file.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("is no object")
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
    """An entry that holds the bare result, as libcni before 0.8 wrote it; None if there is no file."""
    try:
        document = go_json.loads(file.read_bytes())
    except OSError:
        return None
    except ValueError as error:
        raise UnreadableEntryError(f"{file}: {error}") from None
    if not isinstance(document, dict) or go_json.select_members(document, ("kind",)):
        raise UnreadableEntryError(f"{file} is no cache entry")
    return CachedAttachment(network, parameters, result=document, file=file)


def _readable(files: list[Path]) -> Iterator[CachedAttachment]:
    for file in files:
        try:
            entry = _parse(file)
        except (OSError, ValueError) as error:
            log.debug("%s is no cache entry: %s", file, error)
            continue
        if entry.network and entry.parameters.ifname:
            yield entry


def _replace(target: Path, content: bytes, scratch: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".results-", dir=scratch)  # not in results: libcni would list it
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
