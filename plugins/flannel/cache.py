"""The cache of delegate configurations, so that DEL calls the delegate with the configuration of ADD."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pycni.sdk import Owner, StateFile

log = logging.getLogger(__name__)

Document = dict[str, Any]
_SEPARATOR = ":"  # occurs in neither container ids nor interface names


class CacheEntry:
    """The cache files of one attachment in `data_dir`.

    Each attachment has a file of its own. The Go plugin has one file per container, which the next interface of the
    container overwrites. That file is written too, so that either plugin can delete what the other created. It is
    removed with the last interface of the container.
    """

    def __init__(self, data_dir: str, owner: Owner) -> None:
        self._directory = Path(data_dir)
        self._owner = owner
        self._attachment_file = _file(self._directory / f"{owner.container_id}{_SEPARATOR}{owner.ifname}")
        self._container_file = _file(self._directory / owner.container_id)

    def write(self, document: Document) -> None:
        """Save the delegate configuration. Raise CniError, code 5."""
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        for file in (self._attachment_file, self._container_file):
            file.write(text)

    def read(self) -> Document | None:
        """Return the delegate configuration of this attachment, or that in the Go plugin's file; None if unknown.

        The Go plugin's file is ignored if it belongs to another network.
        """
        document = self.read_attachment_file()
        if document is not None:
            return document
        document = _document(self._container_file)
        return document if document and document.get("name") in (None, self._owner.network) else None

    def read_attachment_file(self) -> Document | None:
        """Return the delegate configuration in this attachment's own file; None if there is none."""
        return _document(self._attachment_file)

    def remove(self) -> None:
        """Remove the files. Raise CniError, code 5."""
        self._attachment_file.remove()
        if not any(self._directory.glob(f"{self._owner.container_id}{_SEPARATOR}*")):
            self._container_file.remove()


def stale(data_dir: str, network: str, valid: Sequence[Owner]) -> Iterator[CacheEntry]:
    """Yield the caches of stale attachments of the network, and the Go plugin's of containers without a valid one."""
    attachments = {(owner.container_id, owner.ifname) for owner in valid}
    attachments |= {(owner.container_id, "") for owner in valid}
    try:
        paths = sorted(Path(data_dir).iterdir())
    except OSError:
        return
    for path in paths:
        container_id, _, ifname = path.name.partition(_SEPARATOR)
        document = _document(_file(path))
        if document and document.get("name") == network and (container_id, ifname) not in attachments:
            yield CacheEntry(data_dir, Owner(network, container_id, ifname))


def _file(path: Path) -> StateFile:
    return StateFile(path, "the delegate configuration")


def _document(file: StateFile) -> Document | None:
    content = file.read()
    if content is None:
        return None
    try:
        document = json.loads(content)
    except ValueError as error:
        log.warning("ignoring the damaged cache file %s: %s", file, error)
        return None
    return document if isinstance(document, dict) else None
