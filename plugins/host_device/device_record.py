"""Records of devices that are in a container: one file per attachment, from which DEL and GC restore the device."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.sdk import Attachment, Field, Model, SavedLink, StateFile, ValidationError

from .selection import DeviceSelector, HostDeviceConfig

if TYPE_CHECKING:
    from pycni.sdk import Link

log = logging.getLogger(__name__)
_LONGEST_ID = 200  # bytes; a file name has at most 255


class DeviceRecord(Model):
    """The attachment that has the device, its network namespace, and the settings of the device before ADD."""

    owner: str
    container_id: str
    ifname: str
    netns: str  # path of the container's namespace
    cookie: str = Field(alias="incarnation")  # identifies the namespace, because its path can be reused
    selector: str
    physical: bool  # the kernel moves a physical device to the host when the namespace is deleted
    saved_link: SavedLink = Field(alias="home")

    @classmethod
    def of(cls, link: "Link", selector: DeviceSelector, cni: Attachment[HostDeviceConfig]) -> "DeviceRecord":
        """Return the record of a device that is still on the host."""
        return cls.model_construct(  # the values are known to be valid
            owner=cni.owner.label,
            container_id=cni.container_id,
            ifname=cni.ifname,
            netns=cni.request.netns,
            cookie=cni.container.cookie,
            selector=str(selector),
            physical=not link.state.kind,
            saved_link=SavedLink.read(link),
        )

    @property
    def name(self) -> str:
        """Return the name of the device on the host."""
        return self.saved_link.name

    def to_json(self) -> str:
        """Return the content of the file. The keys are those of earlier versions."""
        fields = dict(self)
        fields["incarnation"] = fields.pop("cookie")
        fields["home"] = asdict(fields.pop("saved_link"))
        return json.dumps(fields, indent=1, default=str)


def file_of(cni: Attachment[HostDeviceConfig]) -> StateFile:
    """Return the record file of the attachment."""
    container = cni.container_id if len(cni.container_id) <= _LONGEST_ID else cni.owner.key
    return _file(Path(cni.config.data_dir) / f"{container}_{cni.ifname}.json")


def find(file: StateFile) -> DeviceRecord | None:
    """Return the record; None if there is no file or it is damaged. Raise CniError, code 5, if it cannot be read."""
    content = file.read()
    if content is None:
        return None
    try:
        return DeviceRecord.model_validate_json(content)
    except ValidationError as error:
        log.warning("ignoring the damaged device record %s: %s", file, error)
        return None


def all_in(data_dir: str) -> Iterator[tuple[StateFile, DeviceRecord]]:
    """Yield every record file of the directory, with its record."""
    for path in sorted(Path(data_dir).glob("*_*.json")):
        file = _file(path)
        if (record := find(file)) is not None:
            yield file, record


def _file(path: Path) -> StateFile:
    return StateFile(path, "the device record")
