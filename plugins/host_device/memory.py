"""What a device was like at home, kept so that it comes home as it was: a file for each attachment that has one."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.sdk import Attachment, Field, Model, SavedLink, StateFile, ValidationError

from .selection import HostDeviceConfig, Selector

if TYPE_CHECKING:
    from pycni.sdk import Link

log = logging.getLogger(__name__)
_LONGEST_ID = 200  # in the name of a file, which has at most 255 bytes


class Memory(Model):
    """Who has the device, where it went, and what it was like."""

    owner: str
    container_id: str
    ifname: str
    netns: str  # its path
    cookie: str = Field(alias="incarnation")  # which of the namespaces that are there one after another
    selector: str
    physical: bool  # then the kernel sends it home when the namespace goes
    home: SavedLink

    @classmethod
    def of(cls, link: "Link", selector: Selector, cni: Attachment[HostDeviceConfig]) -> "Memory":
        """What there is to remember before the link goes."""
        return cls.model_construct(  # what is known need not be validated
            owner=cni.owner.label,
            container_id=cni.container_id,
            ifname=cni.ifname,
            netns=cni.request.netns,
            cookie=cni.container.cookie,
            selector=str(selector),
            physical=not link.state.kind,
            home=SavedLink.read(link),
        )

    @property
    def name(self) -> str:
        """The name of the device at home."""
        return self.home.name

    def to_json(self) -> str:
        """The text of the file."""
        fields = dict(self)
        fields["incarnation"] = fields.pop("cookie")
        return json.dumps({**fields, "home": asdict(self.home)}, indent=1, default=str)


def file_of(cni: Attachment[HostDeviceConfig]) -> StateFile:
    """The file of the attachment."""
    container = cni.container_id if len(cni.container_id) <= _LONGEST_ID else cni.owner.key
    return _file(Path(cni.config.data_dir) / f"{container}_{cni.ifname}.json")


def find(file: StateFile) -> Memory | None:
    """What it says; None if there is no such file, or if it cannot be understood. Raises CniError, code 5."""
    content = file.read()
    if content is None:
        return None
    try:
        return Memory.model_validate_json(content)
    except ValidationError as error:
        log.warning("%s is damaged: %s", file, error)
        return None


def all_in(data_dir: str) -> Iterator[tuple[StateFile, Memory]]:
    """Every file of the directory, with what it says."""
    for path in sorted(Path(data_dir).glob("*_*.json")):
        file = _file(path)
        if (memory := find(file)) is not None:
            yield file, memory


def _file(path: Path) -> StateFile:
    return StateFile(path, "what the device was like,")
