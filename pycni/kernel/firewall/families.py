"""Constants of IPv4 and IPv6 that the backends share, by IP version (4 or 6)."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

FAMILY_NAMES = {4: "ip", 6: "ip6"}  # nft's keywords, and the prefixes of the iptables programs
HOST_LENGTHS = {4: 32, 6: 128}  # prefix length of a single address
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
UNSPECIFIED = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - no socket is bound to them


class _Versioned(Protocol):
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=_Versioned)


def by_version(items: Iterable[T]) -> dict[int, list[T]]:
    """Group addresses or subnets by IP version. Versions and items keep their order."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(item.version, []).append(item)
    return groups
