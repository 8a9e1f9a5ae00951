"""Whose a thing is: the label that links, firewall elements and host interfaces carry."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from pycni.protocol.address import Address

try:
    # What hashlib would take without OpenSSL, whose loading takes 3 ms; since Python 3.12 it has another name.
    from _sha512 import sha512  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha512

# Returns those of the addresses that no attachment uses any more.
SelectUnused = Callable[[Iterable[Address]], list[Address]]

_LABEL = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16},")
_HOLDER = re.compile(r"net: (?P<network>.*), if: (?P<ifname>\S+), id: (?P<id>.*)")
_COMMENT_MAX = 128  # what nftables takes as a comment


def digest(text: str) -> str:
    """SHA-512 of the text, as hexadecimal digits."""
    return str(sha512(text.encode()).hexdigest())


@dataclass(frozen=True)
class Owner:
    """The attachment of one interface of one container to one network."""

    network: str
    container_id: str
    ifname: str

    @cached_property
    def key(self) -> str:
        """33 characters that identify it: 16 for the network, a hyphen, 16 for container and interface."""
        return f"{network_key(self.network)}-{digest(f'{self.ifname}:{self.container_id}')[:16]}"

    @cached_property
    def label(self) -> str:
        """The key and what it stands for, at most 128 characters: an alias of a link, a comment in nftables."""
        text = f"{self.key}, net: {self.network}, if: {self.ifname}, id: {self.container_id}"
        return text.replace('"', "")[:_COMMENT_MAX]

    def label_with(self, note: str) -> str:
        """The label with a note in it, behind the key."""
        return f"{self.key}, {note}{self.label[len(self.key) :]}"[:_COMMENT_MAX]

    @cached_property
    def host_ifname(self) -> str:
        """The name of its interface on the host."""
        return f"veth{digest(self.key)[:11]}"

    def container_name(self, prefix: str, length: int) -> str:
        """A name for what the container has on the network by all its interfaces, as the Go plugins derive it."""
        return (prefix + digest(self.network + self.container_id))[:length]

    def owns(self, label: str) -> bool:
        """Whether `label` is on something of this attachment."""
        return label.startswith(self.key)


def holder(label: str) -> str:
    """The attachment on whose thing the label is, in words."""
    found = _HOLDER.search(label)
    return f'{found["ifname"]} of container {found["id"]} (network "{found["network"]}")' if found else f'"{label}"'


def is_of_container(label: str, container_id: str) -> bool:
    """Whether the label is on something of this container, by whatever interface and network."""
    found = _HOLDER.search(label)
    return found is not None and bool(found["id"]) and container_id.startswith(found["id"])


def network_key(network: str) -> str:
    """The part of a key that tells the network: 16 hexadecimal digits."""
    return digest(network)[:16]


def is_label(text: str) -> bool:
    """Whether the text is the label of an attachment, whosoever."""
    return bool(_LABEL.match(text))


@dataclass(frozen=True)
class Stale:
    """Everything of one network that belongs to none of the attachments still valid."""

    network: str
    valid: Collection[Owner]

    def owns(self, label: str) -> bool:
        """Whether `label` is on something of this network that nobody valid owns."""
        return label.startswith(f"{network_key(self.network)}-") and not any(owner.owns(label) for owner in self.valid)
