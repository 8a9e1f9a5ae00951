"""Masquerading by nftables: an attachment is one set element per address, the rules are few and never change.

set masquerade4-24 { 10.1.0.2 . 10.1.0.0 }     an address and the subnet it is in; one set for all subnets of a length
                                               what it sends to its own subnet, or to multicast, stays as it is

The sets have no verdicts, for the kernel looks at each element of a verdict map whenever one is added.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.firewall.nftables.go_chain import GoChain
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

_T = "inet pycni"
_WORD, _ANY = {"4": "ip", "6": "ip6"}, {"4": "0.0.0.0", "6": "::"}  # noqa: S104 - nobody binds to them
_MULTICAST = {"4": "224.0.0.0/4", "6": "ff00::/8"}


def _rules(place: str) -> tuple[str, ...]:
    version, length = place.removeprefix("masquerade").split("-")
    word, mask = _WORD[version], ip_network(f"{_ANY[version]}/{length}").netmask
    return (
        f"{word} saddr . {word} daddr & {mask} @{place} return",
        f"{word} saddr . {word} saddr & {mask} @{place} {word} daddr != {_MULTICAST[version]} masquerade",
    )


def _for_place(place: str) -> str:
    address = f"ipv{place.removeprefix('masquerade')[0]}_addr"
    rules = "".join(f"add rule {_T} postrouting {rule}\n" for rule in _rules(place))
    return f"create set {_T} {place} {{ type {address} . {address}; }}\n{rules}"


_TABLE = Table(
    _T,
    f"""
table {_T} {{
    chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
}}
""",
    ("masquerade4-", "masquerade6-"),
    for_place=_for_place,
)
_GO_CHAIN = GoChain("inet cni_plugins_masquerade", "masq_checks")  # its comments begin with the owner's key too


def create(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Hide these addresses behind the host's, towards everything outside their own subnets."""
    words = ", ".join(str(cidr.ip) for cidr in cidrs)
    _TABLE.create(netns, _elements(cidrs), owner, what=f"masquerade {words}")


def expect(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Raise CniError unless these addresses are masqueraded, by us or by what a Go plugin made."""
    try:
        _TABLE.expect(netns, _elements(cidrs), owner, what="masquerading")
        _expect_rules(netns, {element.place for element in _elements(cidrs)})
    except CniError:
        if not {str(cidr.ip) for cidr in cidrs} <= _masqueraded_by_go(netns, owner):
            raise


def delete(netns: NetnsHandle, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None) -> None:
    """Masquerade the owner's addresses no more; which they are is looked up unless `cidrs` says it."""
    _TABLE.delete(netns, owner, None if cidrs is None else _elements(cidrs))
    _GO_CHAIN.delete(netns, owner.owns)


def _masqueraded_by_go(netns: NetnsHandle, owner: Owner) -> set[str]:
    """The source addresses of the rules that a Go plugin made for the owner."""
    matches = [part.get("match", {}) for rule in _GO_CHAIN.rules(netns, owner.owns) for part in rule["expr"]]
    return {match["right"] for match in matches if match.get("left", {}).get("payload", {}).get("field") == "saddr"}


def _expect_rules(netns: NetnsHandle, places: Iterable[str]) -> None:
    wanted = [rule for place in places for rule in _rules(place)]
    (count,) = lookup(netns).uses("inet", "pycni", ["postrouting"])  # nothing leads to it but its hook
    if count < len(wanted):
        raise CniError(
            f"masquerading is missing: chain postrouting of nftables table {_T} has {count} of its {len(wanted)} rules",
            details=f"somebody has changed it; they are: {'; '.join(wanted)}",
        )


def _elements(cidrs: Iterable[Cidr]) -> list[Element]:
    return [
        Element(f"masquerade{cidr.version}-{cidr.network.prefixlen}", f"{cidr.ip} . {cidr.network.network_address}")
        for cidr in cidrs
    ]
