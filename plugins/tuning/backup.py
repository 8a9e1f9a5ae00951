"""The settings of an interface before ADD changed them, in a file with the Go plugin's format."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

from pycni.sdk import Field, LinkChanges, Model, Owner, StateFile

log = logging.getLogger(__name__)


class SettingsBackup(Model):
    """The original values of the changed settings. The Go plugin ignores `owner`, which is pycni's."""

    mac: str | None = None
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    txqlen: int | None = Field(None, alias="txQLen")
    owner: str = ""

    @property
    def settings(self) -> LinkChanges:
        """Return the link settings that restore the interface."""
        return cast(LinkChanges, self.model_dump(exclude={"owner"}, exclude_none=True))

    def completed_by(self, other: Self) -> Self:
        """Return a copy with the values of `other` for settings that this backup does not have."""
        return self.model_copy(update={key: value for key, value in other if getattr(self, key) in (None, "")})

    def to_json(self) -> str:
        """Return the content of the backup file."""
        return json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=1)


class BackupFile(StateFile):
    """The backup file of one interface of one container."""

    def __init__(self, data_dir: str, container_id: str, ifname: str) -> None:
        super().__init__(Path(data_dir) / f"{container_id}_{ifname}.json", "the backup")

    def find(self) -> SettingsBackup | None:
        """Return the backup: None if there is no file, an empty one if the file is damaged."""
        return find(self.path)

    def save(self, backup: SettingsBackup) -> None:
        """Write the backup. Raise CniError, code 5."""
        self.write(backup.to_json())


def find(path: Path) -> SettingsBackup | None:
    """Return the backup in a file: None if there is no file, an empty one if the file is damaged."""
    try:
        document = json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError as error:
        log.warning("ignoring the damaged backup file %s: %s", path, error)
        return SettingsBackup()
    backup, errors = SettingsBackup.read_leniently(document if isinstance(document, Mapping) else {})
    for problem in errors:
        log.warning("ignoring a damaged value in the backup file %s: %s", path, problem)
    return backup


def of(values: Mapping[str, object], owner: Owner) -> SettingsBackup:
    """Return the backup of these values of a link."""
    return SettingsBackup.model_validate({**values, "owner": owner.label})


def all_in(data_dir: str) -> Iterator[tuple[Path, SettingsBackup]]:
    """Yield the path and content of every backup file in the directory."""
    with suppress(OSError):
        for path in Path(data_dir).glob("*_*.json"):
            if backup := find(path):
                yield path, backup
