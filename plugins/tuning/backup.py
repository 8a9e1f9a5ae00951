"""What an interface was like before it was tuned: a file in the format of the Go plugin, so that either restores it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pycni.sdk import Field, Model, Owner, StateFile

log = logging.getLogger(__name__)


class Backup(Model):
    """The former values of what was changed; the Go plugin ignores whose they are."""

    mac: str | None = None
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    txqlen: int | None = Field(None, alias="txQLen")
    owner: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What to set on the link to have it as it was."""
        return self.model_dump(exclude={"owner"}, exclude_none=True)

    def completed_by(self, other: Self) -> Self:
        """The same, with values of the other where it has none."""
        return self.model_copy(update={key: value for key, value in other if getattr(self, key) in (None, "")})

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=1)


class BackupFile(StateFile):
    """The file of one interface of one container."""

    def __init__(self, data_dir: str, container_id: str, ifname: str) -> None:
        super().__init__(Path(data_dir) / f"{container_id}_{ifname}.json", "the backup")

    def find(self) -> Backup | None:
        """What it says; None if there is no such file, nothing if it cannot be understood."""
        return find(self.path)

    def keep(self, backup: Backup) -> None:
        """Write down what the interface is like. Raises CniError, code 5."""
        self.write(backup.to_json())


def find(path: Path) -> Backup | None:
    """What a file says; None if there is no such file, nothing if it cannot be understood."""
    try:
        document = json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError as error:
        log.warning("%s is damaged: %s", path, error)
        return Backup()
    backup, complaints = Backup.read_leniently(document if isinstance(document, Mapping) else {})
    for complaint in complaints:
        log.warning("%s is damaged: %s", path, complaint)
    return backup


def of(values: Mapping[str, object], owner: Owner) -> Backup:
    """The backup of these values of a link."""
    return Backup.model_validate({**values, "owner": owner.label})


def all_in(data_dir: str) -> Iterator[tuple[Path, Backup]]:
    """Every file of the directory, with what it says."""
    with suppress(OSError):
        for path in Path(data_dir).glob("*_*.json"):
            if backup := find(path):
                yield path, backup
