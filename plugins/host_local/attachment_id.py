"""The identity of an attachment, as allocation files record it."""

import os
import re
from dataclasses import dataclass
from typing import Self

_SEPARATOR = b"\r\n"
_CONTAINER_ID = re.compile(rb"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


@dataclass(frozen=True, slots=True)
class AttachmentId:
    """A container id and an interface name, which is empty in files of host-local before 0.8."""

    container_id: str
    ifname: str = ""

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Return the attachment that an allocation file names; None if a CNI plugin cannot have written the file."""
        container_id, separator, ifname = content.strip().partition(_SEPARATOR)
        if not _CONTAINER_ID.fullmatch(container_id) or bool(separator) is not bool(ifname):
            return None
        return cls(container_id.decode("ascii"), os.fsdecode(ifname))

    @property
    def content(self) -> bytes:
        """Return the content of the allocation file, byte for byte as the Go plugin writes it."""
        if not self.ifname:
            return self.container_id.encode("ascii")
        return self.container_id.encode("ascii") + _SEPARATOR + os.fsencode(self.ifname)

    @property
    def legacy(self) -> Self:
        """Return the id without an interface, as host-local before 0.8 recorded it."""
        return type(self)(self.container_id)

    def __str__(self) -> str:
        return f"container {self.container_id}, interface {self.ifname or 'not recorded'}"
