"""What a device was like at home, kept so that it comes home as it was: a file for each attachment that has one."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pycni.sdk import Attachment, Cidr, Home, Model, StateFile

from .selection import HostDeviceConfig, Selector

if TYPE_CHECKING:
    from pycni.sdk import Link

log = logging.getLogger(__name__)


class Memory(Model):
    """Who has the device, where it went, and what it was like."""

    owner: str
    container_id: str
    ifname: str
    netns: str  # its path
    incarnation: str  # which of the namespaces that are there one after another
    selector: str
    physical: bool  # then the kernel sends it home when the namespace goes
    name: str
    mac: str
    mtu: int
    up: bool
    alias: str
    addresses: tuple[Cidr, ...]

    @classmethod
    def of(cls, link: "Link", selector: Selector, cni: Attachment[HostDeviceConfig]) -> "Memory":
        """What there is to remember before the link goes."""
        home = Home.of(link)
        return cls.model_construct(  # what is known need not be validated
            owner=cni.owner.label,
            container_id=cni.container_id,
            ifname=cni.ifname,
            netns=cni.request.netns,
            incarnation=cni.container.incarnation,
            selector=str(selector),
            physical=not link.state.kind,
            name=home.name,
            mac=home.mac,
            mtu=home.mtu,
            up=home.up,
            alias=home.alias,
            addresses=home.cidrs,
        )

    @property
    def home(self) -> Home:
        """What the device shall be like when it is home again."""
        return Home(self.name, self.mac, self.mtu, self.up, self.alias, self.addresses)

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({**dict(self), "addresses": [str(cidr) for cidr in self.addresses]}, indent=1)


def file_of(cni: Attachment[HostDeviceConfig]) -> StateFile:
    """The file of the attachment."""
    return _file(Path(cni.config.data_dir) / f"{cni.container_id}_{cni.ifname}.json")


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
