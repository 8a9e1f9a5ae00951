"""Owners of the addresses that have rules in iptables or firewalld, recorded in nftables sets.

set iptables4 { 10.1.0.2 comment "d23676b4f2d9fe04-…, net: mynet, if: eth0, id: …" }

A Go plugin finds the rules of an address by their exact text, so the rules of pycni carry no label either. No rule
refers to these sets. If nftables does not work, owners are not recorded, and DEL depends on prevResult.
"""

import logging
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from pycni.kernel.firewall.nftables.elements import TABLE, Element, ElementTable
from pycni.kernel.firewall.nftables.nft import NftError, NftUnavailableError
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address

log = logging.getLogger(__name__)

IPTABLES, FIREWALLD, HOST_PORT = "iptables", "firewalld", "hostport"  # kinds of rules; sets are named after them
_SETS = tuple(f"{kind}{version}" for kind in (IPTABLES, FIREWALLD, HOST_PORT) for version in (4, 6))
_SET_DEFINITIONS = "".join(f"    set {name} {{ type ipv{name[-1]}_addr; }}\n" for name in _SETS)
_TABLE = ElementTable(TABLE, f"\ntable {TABLE} {{\n{_SET_DEFINITIONS}}}\n", _SETS)

Entry = tuple[Address, str]  # an address and the label of its owner


def create(netns: NetnsHandle, kind: str, ips: Sequence[Address], owner: Owner) -> None:
    """Record that rules of this kind for the addresses belong to the owner. Log a warning if nftables fails."""
    try:
        _TABLE.create(netns, _elements(kind, ips), owner, what=f"record the owner of {', '.join(map(str, ips))}")
    except (NftError, NftUnavailableError) as error:
        log.warning("DEL of %s will not find its rules unless it is given a prevResult: %s", owner.label, error)


def find(netns: NetnsHandle, kind: str, ips: Sequence[Address] | None = None) -> list[Entry]:
    """Return the recorded addresses among `ips` with their owners; all of them if `ips` is None."""
    if ips is not None:
        return [(ip_address(e.key), label) for e, label in _TABLE.find(netns, _elements(kind, ips))]
    try:
        found = _TABLE.find_all(netns)
    except NftUnavailableError:
        return []
    except NftError as error:
        if error.missing:
            return []
        raise
    return [(ip_address(element.key), label) for element, label in found if element.set_name[:-1] == kind]


def delete(netns: NetnsHandle, kind: str, owner: Owner | Stale, ips: Sequence[Address] | None = None) -> None:
    """Delete the records of the owner for `ips`; all of them if it is None."""
    if ips is None:
        ips = [ip for ip, label in find(netns, kind) if owner.owns(label)]
    if ips:
        _TABLE.delete(netns, owner, _elements(kind, ips))


def _elements(kind: str, ips: Iterable[Address]) -> list[Element]:
    return [Element(f"{kind}{ip.version}", str(ip)) for ip in ips]
