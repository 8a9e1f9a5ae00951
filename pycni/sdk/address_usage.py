"""The addresses and interfaces in use, from the caches of runtimes and host-local, for GC of state without an owner.

Some rules of the Go plugins name only an address, and some backup files only an interface. GC removes such a rule if
the address belongs to a subnet of the network and is unused: no result in a runtime's cache has it, and host-local has
no reservation for it. GC removes such a backup file if no result in a runtime's cache has the interface.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Self

from pycni.kernel.owner import Owner, Stale
from pycni.protocol import go_json
from pycni.protocol.address import Address, Cidr, parse_ip
from pycni.protocol.conversion import VersionedResult

log = logging.getLogger(__name__)

_STATE = Path("/var/lib/cni")  # the default of libcni and host-local


@dataclass(frozen=True, slots=True)
class AddressUsage:
    """The attachments in the caches of runtimes, the subnets of their networks, and all addresses in use.

    `attachments` have a cached result; `subnets` are pairs of network name and subnet.
    """

    attachments: frozenset[Owner] = frozenset()
    subnets: frozenset[tuple[str, IPv4Network | IPv6Network]] = frozenset()
    used: frozenset[Address] = frozenset()

    @classmethod
    def read(cls, state: Path | None = None) -> Self:
        """Read libcni's `results` and host-local's `networks` below the directory `state`, by default /var/lib/cni.

        If a result cannot be parsed, return an empty AddressUsage, by which nothing counts as unused: the unreadable
        result may have any address.
        """
        state = state or _STATE
        try:
            entries = list(_cached(state / "results"))
        except (OSError, ValueError) as error:
            log.warning("GC keeps rules without an owner, because a cached result cannot be read: %s", error)
            return cls()
        return cls(
            frozenset(owner for owner, _ in entries),
            frozenset((owner.network, cidr.network) for owner, cidrs in entries for cidr in cidrs),
            frozenset(cidr.ip for _, cidrs in entries for cidr in cidrs) | frozenset(_reserved(state / "networks")),
        )

    def unused_addresses(self, ips: Iterable[Address], stale: Stale) -> list[Address]:
        """Return the addresses in `ips` that belong to a subnet of the network of `stale` and are unused."""
        subnets = [subnet for network, subnet in self.subnets if network == stale.network]
        candidates = [ip for ip in ips if any(ip in subnet for subnet in subnets)]
        return [ip for ip in candidates if ip not in self.used] if self._covers(stale) else []

    def is_unused_interface(self, interface: str, stale: Stale) -> bool:
        """Return whether no attachment has the interface `CONTAINERID_IFNAME`."""
        is_used = any(interface == f"{owner.container_id}_{owner.ifname}" for owner in self.attachments)
        return not is_used and self._covers(stale)

    def _covers(self, stale: Stale) -> bool:
        """Return whether the cache has all valid attachments. If not, the caller of GC keeps its cache elsewhere."""
        return bool(stale.valid) and self.attachments.issuperset(stale.valid)


def _cached(results: Path) -> Iterator[tuple[Owner, list[Cidr]]]:
    """Yield every cached attachment with its addresses. Raises OSError, and ValueError for a file that is no result."""
    for file in results.iterdir() if results.exists() else ():
        try:
            document = go_json.loads(file.read_bytes())
            known = go_json.select_members(document, ("networkName", "containerId", "ifName", "result"))
            owner = Owner(*(known.get(key, "") for key in ("networkName", "containerId", "ifName")))
            yield owner, _addresses(known.get("result"))
        except FileNotFoundError:
            continue  # deleted meanwhile
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from None


def _addresses(result: Mapping[str, Any] | None) -> list[Cidr]:
    return [ip.address for ip in VersionedResult.parse(result).result.ips] if result else []


def _reserved(networks: Path) -> Iterator[Address]:
    """Yield the addresses reserved by host-local, whose files are named after them."""
    for file in networks.glob("*/*"):
        with suppress(ValueError):
            yield parse_ip(file.name)
