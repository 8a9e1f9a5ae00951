"""Who has which address, by what runtimes and host-local have written down: for GC of rules that tell no owner.

Some rules of the Go plugins name nothing but an address, some backups nothing but an interface. Such a rule may go when
the address is of the network, and nobody has it: neither an attachment whose result a runtime has cached, nor one that
host-local holds it for. Such a backup may go when no runtime has a result for the interface.
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

_STATE = Path("/var/lib/cni")  # libcni's and host-local's default


@dataclass(frozen=True, slots=True)
class AddressUsage:
    """The attachments that runtimes know, the subnets of their networks, and the addresses that somebody has."""

    attachments: frozenset[Owner] = frozenset()
    subnets: frozenset[tuple[str, IPv4Network | IPv6Network]] = frozenset()
    used: frozenset[Address] = frozenset()

    @classmethod
    def read(cls, state: Path | None = None) -> Self:
        """What lies below a directory in libcni's `results` and host-local's `networks`.

        Nothing at all if one of the results cannot be understood: whose address it tells nobody knows.
        """
        state = state or _STATE
        try:
            entries = list(_cached(state / "results"))
        except (OSError, ValueError) as error:
            log.warning("whose the addresses in rules without an owner are cannot be said: %s", error)
            return cls()
        return cls(
            frozenset(owner for owner, _ in entries),
            frozenset((owner.network, cidr.network) for owner, cidrs in entries for cidr in cidrs),
            frozenset(cidr.ip for _, cidrs in entries for cidr in cidrs) | frozenset(_reserved(state / "networks")),
        )

    def unused_addresses(self, ips: Iterable[Address], stale: Stale) -> list[Address]:
        """Those of the network that nobody has."""
        subnets = [subnet for network, subnet in self.subnets if network == stale.network]
        ours = [ip for ip in ips if any(ip in subnet for subnet in subnets)]
        return [ip for ip in ours if ip not in self.used] if self._covers(stale) else []

    def is_unused_interface(self, interface: str, stale: Stale) -> bool:
        """Whether no network has this interface of a container, `ID_IFNAME`, any more."""
        is_there = any(interface == f"{owner.container_id}_{owner.ifname}" for owner in self.attachments)
        return not is_there and self._covers(stale)

    def _covers(self, stale: Stale) -> bool:
        """Whether the runtime that says what is valid is one of those that write here."""
        return bool(stale.valid) and self.attachments.issuperset(stale.valid)


def _cached(results: Path) -> Iterator[tuple[Owner, list[Cidr]]]:
    """Every attachment with its addresses. Raises OSError, and ValueError for what is no result."""
    for file in results.iterdir() if results.exists() else ():
        try:
            document = go_json.loads(file.read_bytes())
            known = go_json.select_members(document, ("networkName", "containerId", "ifName", "result"))
            owner = Owner(*(known.get(key, "") for key in ("networkName", "containerId", "ifName")))
            yield owner, _addresses(known.get("result"))
        except FileNotFoundError:
            continue  # its attachment has just ended
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from None


def _addresses(result: Mapping[str, Any] | None) -> list[Cidr]:
    return [ip.address for ip in VersionedResult.parse(result).result.ips] if result else []


def _reserved(networks: Path) -> Iterator[Address]:
    """The addresses that files of host-local are named after."""
    for file in networks.glob("*/*"):
        with suppress(ValueError):
            yield parse_ip(file.name)
