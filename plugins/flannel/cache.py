"""What was delegated, kept so that DEL undoes just that: a file for each attachment, and one as Go's plugin has it."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pycni.sdk import Owner, StateFile

log = logging.getLogger(__name__)

Document = dict[str, Any]
_SEPARATOR = ":"  # neither container ids nor names of interfaces have one


class Cache:
    """The files of one attachment in `data_dir`.

    The Go plugin has one file a container, which the next interface of the container overwrites. It is written too, so
    that either plugin removes what the other one made, and goes with the container's last interface.
    """

    def __init__(self, data_dir: str, owner: Owner) -> None:
        self._directory = Path(data_dir)
        self._owner = owner
        self._own = _file(self._directory / f"{owner.container_id}{_SEPARATOR}{owner.ifname}")
        self._shared = _file(self._directory / owner.container_id)

    def write(self, document: Document) -> None:
        """Remember what is delegated. Raises CniError, code 5."""
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        for file in (self._own, self._shared):
            file.write(text)

    def read(self) -> Document | None:
        """What was delegated; None if nothing is known. The Go plugin's file may be about another network."""
        document = self.read_own()
        if document is not None:
            return document
        document = _document(self._shared)
        return document if document and document.get("name") in (None, self._owner.network) else None

    def read_own(self) -> Document | None:
        """What was delegated for this very interface; None if nothing is known."""
        return _document(self._own)

    def remove(self) -> None:
        """Forget it. Raises CniError, code 5."""
        self._own.remove()
        if not any(self._directory.glob(f"{self._owner.container_id}{_SEPARATOR}*")):
            self._shared.remove()


def stale(data_dir: str, network: str, valid: Sequence[Owner]) -> Iterator[Cache]:
    """The caches of the network's attachments that are not valid any more; of the Go plugin's, those of containers."""
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
            yield Cache(data_dir, Owner(network, container_id, ifname))


def _file(path: Path) -> StateFile:
    return StateFile(path, "what was delegated,")


def _document(file: StateFile) -> Document | None:
    content = file.read()
    if content is None:
        return None
    try:
        document = json.loads(content)
    except ValueError as error:
        log.warning("%s is damaged: %s", file, error)
        return None
    return document if isinstance(document, dict) else None
