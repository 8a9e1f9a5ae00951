"""Stand-in for a container's namespace that is gone: DEL runs as usual and finds nothing to delete."""

from __future__ import annotations

from collections.abc import Collection

from pycni.kernel.link.link import Link
from pycni.protocol.address import Address, Cidr


class NoNamespace:
    """The part of Namespace that DEL uses, for a namespace that is gone."""

    path = ""

    def __init__(self) -> None:
        self.links = _NoLinks()
        self.addresses = _NoAddresses()
        self.rules = _NoRules()
        self.vrfs = _NoVrfs()

    def find_link(self, name: str) -> None:  # noqa: ARG002 - the signature of Namespace
        """Return None."""
        return

    def close(self) -> None:
        """Do nothing: nothing is open."""


class _NoLinks:
    def delete(self, name: str) -> None:
        """Do nothing: the link is gone."""

    def set_down(self, name: str) -> None:
        """Do nothing: the link is gone."""


class _NoAddresses:
    def all(self) -> list[Cidr]:
        """Return no addresses."""
        return []


class _NoRules:
    def delete(self, sources: Collection[Address], table: int | None = None) -> None:
        """Do nothing: the rules are gone."""


class _NoVrfs:
    def leave(self, link: Link | None, name: str) -> None:
        """Do nothing: the VRF is gone."""
