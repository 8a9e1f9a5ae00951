"""Whose the addresses are for which iptables and firewalld have rules: a register, since their rules cannot say it.

set iptables4 { 10.1.0.2 comment "d23676b4f2d9fe04-…, net: mynet, if: eth0, id: …" }

A Go plugin finds the rules of an address by their very text, so ours carry no label either. No rule looks in here, and
it lives as long as the rules do. Where nftables does not work there is none; DEL then depends on prevResult.
"""

import logging
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.firewall.nftables.nft import NftError, NftUnavailableError
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address

log = logging.getLogger(__name__)

_PLACES = tuple(f"{backend}{version}" for backend in ("iptables", "firewalld", "hostport") for version in (4, 6))
_TYPE = {"4": "ipv4_addr", "6": "ipv6_addr"}
_SETS = "".join(f"    set {place} {{ type {_TYPE[place[-1]]}; }}\n" for place in _PLACES)
_TABLE = Table("inet pycni", f"\ntable inet pycni {{\n{_SETS}}}\n", _PLACES)

Entry = tuple[Address, str]  # and the label of whom it belongs to


def create(netns: NetnsHandle, backend: str, ips: Sequence[Address], owner: Owner) -> None:
    """Write down that the owner has rules for these addresses."""
    try:
        _TABLE.create(netns, _elements(backend, ips), owner, what=f"note whose {', '.join(map(str, ips))} is")
    except (NftError, NftUnavailableError) as error:
        log.warning("without prevResult, DEL will not find the rules of %s: %s", owner.label, error)


def entries(netns: NetnsHandle, backend: str, ips: Sequence[Address] | None = None) -> list[Entry]:
    """What is written down for the backend, of these addresses or of all."""
    if ips is not None:
        return [(ip_address(e.key), label) for e, label in _TABLE.found(netns, _elements(backend, ips))]
    try:
        found = _TABLE.held(netns)
    except NftUnavailableError:
        return []
    except NftError as error:
        if error.missing:
            return []
        raise
    return [(ip_address(element.key), label) for element, label in found if element.place[:-1] == backend]


def delete(netns: NetnsHandle, backend: str, owner: Owner | Stale, ips: Sequence[Address] | None = None) -> None:
    """Strike out what is written down of the owner."""
    if ips is None:
        ips = [ip for ip, label in entries(netns, backend) if owner.owns(label)]
    if ips:
        _TABLE.delete(netns, owner, _elements(backend, ips))


def _elements(backend: str, ips: Iterable[Address]) -> list[Element]:
    return [Element(f"{backend}{ip.version}", str(ip)) for ip in ips]
