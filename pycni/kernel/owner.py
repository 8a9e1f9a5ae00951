"""Ownership labels: links, nftables elements and names of host interfaces tell which attachment created them."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from pycni.protocol.address import Address

try:
    # hashlib loads OpenSSL, which takes 3 ms. Python 3.12 has this module under another name.
    from _sha512 import sha512  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha512

# Returns those of the addresses that no attachment uses any more.
SelectUnused = Callable[[Iterable[Address]], list[Address]]

_LABEL = r"[0-9a-f]{16}-[0-9a-f]{16},"
_DESCRIPTION = r"net: (?P<network>.*), if: (?P<ifname>\S+), id: (?P<id>.*)"
_MAX_COMMENT = 128  # bytes of a comment in nftables


def digest(text: str) -> str:
    """Return the SHA-512 of the text as hexadecimal digits."""
    return str(sha512(text.encode()).hexdigest())


@dataclass(frozen=True)
class Owner:
    """An attachment: one interface of one container on one network."""

    network: str
    container_id: str
    ifname: str

    @cached_property
    def key(self) -> str:
        """33 characters that identify the attachment: 16 for the network, a hyphen, 16 for container and interface."""
        return f"{network_key(self.network)}-{digest(f'{self.ifname}:{self.container_id}')[:16]}"

    @cached_property
    def label(self) -> str:
        """The ownership label, at most 128 characters: the key with network, interface and container id in plain text.

        It is the alias of links and the comment of nftables elements.
        """
        text = f"{self.key}, net: {self.network}, if: {self.ifname}, id: {self.container_id}"
        return text.replace('"', "")[:_MAX_COMMENT]

    def label_with_note(self, note: str) -> str:
        """Return the label with a note after the key."""
        return f"{self.key}, {note}{self.label[len(self.key) :]}"[:_MAX_COMMENT]

    @cached_property
    def host_ifname(self) -> str:
        """The name of the interface on the host, always the same for the same attachment."""
        return f"veth{digest(self.key)[:11]}"

    def container_name(self, prefix: str, length: int) -> str:
        """Return a name that all interfaces of the container on the network share, derived as in the Go plugins."""
        return (prefix + digest(self.network + self.container_id))[:length]

    def owns(self, label: str) -> bool:
        """Return whether `label` is a label of this attachment."""
        return label.startswith(self.key)


def describe_owner(label: str) -> str:
    """Return a phrase for the attachment that the label names, for errors."""
    found = re.search(_DESCRIPTION, label)
    return f'{found["ifname"]} of container {found["id"]} (network "{found["network"]}")' if found else f'"{label}"'


def belongs_to_container(label: str, container_id: str) -> bool:
    """Return whether the label names this container, with any interface and network."""
    found = re.search(_DESCRIPTION, label)
    return found is not None and bool(found["id"]) and container_id.startswith(found["id"])


def network_key(network: str) -> str:
    """Return the part of a key that identifies the network: 16 hexadecimal digits."""
    return digest(network)[:16]


def is_label(text: str) -> bool:
    """Return whether the text is an ownership label."""
    return bool(re.match(_LABEL, text))


@dataclass(frozen=True)
class Stale:
    """The attachments of one network that are no longer valid, so that GC deletes what they own."""

    network: str
    valid: Collection[Owner]

    def owns(self, label: str) -> bool:
        """Return whether `label` is of this network, and of none of its valid attachments."""
        return label.startswith(f"{network_key(self.network)}-") and not any(owner.owns(label) for owner in self.valid)
