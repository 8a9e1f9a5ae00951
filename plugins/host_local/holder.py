"""Who holds an address: an attachment, as allocation files name it."""

import os
import re
from dataclasses import dataclass
from typing import Self

_SEPARATOR = b"\r\n"
_CONTAINER_ID = re.compile(rb"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


@dataclass(frozen=True, slots=True)
class Holder:
    """A container and one interface of it; plugins before 0.8 wrote the container alone (`ifname` is empty)."""

    container_id: str
    ifname: str = ""

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """The holder that an allocation file names; None for what no plugin wrote."""
        container_id, separator, ifname = content.strip().partition(_SEPARATOR)
        if not _CONTAINER_ID.fullmatch(container_id) or bool(separator) is not bool(ifname):
            return None
        return cls(container_id.decode("ascii"), os.fsdecode(ifname))

    @property
    def content(self) -> bytes:
        """What an allocation file says, byte for byte as the Go plugin writes it."""
        if not self.ifname:
            return self.container_id.encode("ascii")
        return self.container_id.encode("ascii") + _SEPARATOR + os.fsencode(self.ifname)

    @property
    def legacy(self) -> Self:
        """The same container as plugins before 0.8 wrote it."""
        return type(self)(self.container_id)

    def __str__(self) -> str:
        return f"container {self.container_id}, interface {self.ifname or 'not recorded'}"
