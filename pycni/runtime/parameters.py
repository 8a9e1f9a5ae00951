"""What the runtime knows of one attachment: the container, its namespace, its interface, and what it asks for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pycni.protocol import names
from pycni.protocol.errors import CniError, Code


class AttachmentId(NamedTuple):
    """What identifies an attachment (P-702)."""

    container_id: str
    ifname: str


@dataclass(frozen=True)
class RuntimeConf:
    """The parameters of ADD, CHECK and DEL.

    `args` are the pairs of CNI_ARGS in order. `capability_args` go to the plugins that declare the capability;
    a capability whose value is None counts as given. Raises CniError, code 4, for text that no process can be given.
    """

    container_id: str
    netns: str = ""
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in (self.container_id, self.netns, self.ifname, *(part for pair in self.args for part in pair)):
            if not _fits_environment(text):
                raise CniError(f"{text!r} cannot be given to a process", code=Code.INVALID_ENVIRONMENT)

    @property
    def id(self) -> AttachmentId:
        """What identifies the attachment."""
        return AttachmentId(self.container_id, self.ifname)

    @property
    def cni_args(self) -> str:
        """The pairs as CNI_ARGS has them."""
        return ";".join(f"{key}={value}" for key, value in self.args)

    def check(self) -> None:
        """Raise CniError unless container id and interface name are what the specification lets them be."""
        names.check_container_id(self.container_id)
        names.check_ifname(self.ifname)


def _fits_environment(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
