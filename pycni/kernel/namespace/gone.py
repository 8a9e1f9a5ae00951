"""A namespace that is gone."""

from __future__ import annotations

from collections.abc import Collection

from pycni.kernel.link.links import Link
from pycni.protocol.address import Address, Cidr


class NoNamespace:
    """Stands in for a container's namespace that is gone: there is nothing in it, and nothing to delete."""

    path = ""

    def find_link(self, name: str) -> None:  # noqa: ARG002 - as Namespace has it
        """There is no link."""
        return

    def delete_link(self, name: str) -> None:
        """It went with its namespace."""

    def set_down(self, name: str) -> None:
        """It went with its namespace."""

    def delete_source_rules(self, sources: Collection[Address], table: int | None = None) -> None:
        """They went with their namespace."""

    def leave_vrf(self, link: Link | None, name: str) -> None:
        """They went with their namespace."""

    def all_addresses(self) -> list[Cidr]:
        """There is none."""
        return []

    def close(self) -> None:
        """Nothing is open."""
