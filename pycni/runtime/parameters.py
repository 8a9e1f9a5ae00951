"""The parameters of one attachment: container, network namespace, interface, and capability arguments."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pycni.protocol import names
from pycni.protocol.errors import CniError, Code


class AttachmentId(NamedTuple):
    """The identity of an attachment within a network (SPEC section 2, container id and ifname)."""

    container_id: str
    ifname: str


@dataclass(frozen=True)
class RuntimeConf:
    """The parameters of ADD, CHECK and DEL.

    `netns` is a path. `args` are the pairs of CNI_ARGS, in order. `capability_args` are passed to the plugins that
    declare the capability; a value of None is passed as null. Raise CniError, code 4, for text that cannot be an
    environment variable.
    """

    container_id: str
    netns: str = ""
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in (self.container_id, self.netns, self.ifname, *(part for pair in self.args for part in pair)):
            if not _fits_environment(text):
                raise CniError(
                    f"{text!r} cannot be the value of an environment variable", code=Code.INVALID_ENVIRONMENT
                )

    @property
    def id(self) -> AttachmentId:
        """The container id and interface name."""
        return AttachmentId(self.container_id, self.ifname)

    @property
    def cni_args(self) -> str:
        """The value of CNI_ARGS: `KEY=VALUE` pairs joined by semicolons."""
        return ";".join(f"{key}={value}" for key, value in self.args)

    def check(self) -> None:
        """Raise CniError, code 4, unless container id and interface name are valid (SPEC section 2)."""
        names.check_container_id(self.container_id)
        names.check_ifname(self.ifname)


def _fits_environment(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
