"""Forwarding by nftables: what the host lets through from and to an attachment is two set elements an address.

set from4 { 10.1.0.2 }                           everything from the address is accepted
set to4   { 10.1.0.2 }                           to it, what belongs to a connection
chain CNI-ADMIN                                  the administrator's, asked before; it is never flushed
chain fence                                      which bridges are kept apart (isolation.py)

Where the administrator has another chain for a network, its addresses are in maps instead:

map from4-by-chain { 10.1.0.2 : goto from-MINE }

Not all are, for the kernel looks at each element of a verdict map whenever one is added.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.settings import ADMIN_CHAIN
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

TABLE = "inet pycni"
_ACCEPTED = {"from": "accept", "to": "ct state established,related accept"}
_FIELDS = {"from": "saddr", "to": "daddr"}
_WORD = {4: "ip", 6: "ip6"}


def _accepting(way: str, admin_chain: str) -> tuple[str, ...]:
    return f"jump {admin_chain}", "jump fence", _ACCEPTED[way]


def _deciding() -> Iterator[str]:
    for way, field in _FIELDS.items():
        for version, word in _WORD.items():
            yield f"{word} {field} vmap @{way}{version}-by-chain"
            yield f"{word} {field} @{way}{version} goto {way}-{ADMIN_CHAIN}"
    yield "jump fence"


_RULES = {
    "fence": (
        "iifname . oifname @apart drop",
        "iifname @fenced oifname @fenced iifname . oifname != @own drop",
    ),
    **{f"{way}-{ADMIN_CHAIN}": _accepting(way, ADMIN_CHAIN) for way in _ACCEPTED},
    "forward": tuple(_deciding()),
}
_PLACES = "".join(
    f"    set {way}{version} {{ type ipv{version}_addr; }}\n"
    f"    map {way}{version}-by-chain {{ type ipv{version}_addr : verdict; }}\n"
    for way in _ACCEPTED
    for version in _WORD
)

# The chain's policy is left as it is: an administrator may turn it to drop.
SCRIPT = f"""
table {TABLE} {{
{_PLACES}
    set fenced {{ type ifname; }}
    set own {{ type ifname . ifname; }}
    set apart {{ type ifname . ifname; }}
    map fences {{ type ifname . ifname : verdict; }}
    map walls {{ type ifname . ifname : verdict; }}
    chain {ADMIN_CHAIN} {{ }}
    chain fence {{ }}
    chain from-{ADMIN_CHAIN} {{ }}
    chain to-{ADMIN_CHAIN} {{ }}
    chain forward {{ type filter hook forward priority filter; }}
}}
""" + "".join(
    f"flush chain {TABLE} {chain}\n" + "".join(f"add rule {TABLE} {chain} {rule}\n" for rule in rules)
    for chain, rules in _RULES.items()
)

_TABLE = Table(TABLE, SCRIPT, ("from4", "from6", "to4", "to6"))


def create(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, admin_chain: str) -> None:
    """Let through what comes from these addresses, and what belongs to it."""
    words = ", ".join(map(str, ips))
    _TABLE.create(netns, _elements(ips, admin_chain), owner, what=f"let {words} through")


def expect(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, admin_chain: str) -> None:
    """Raise CniError unless these addresses are let through."""
    _TABLE.expect(netns, _elements(ips, admin_chain), owner, what="forwarding")
    accepting = {f"{way}-{admin_chain}": _accepting(way, admin_chain) for way in _ACCEPTED}
    expect_rules(netns, {**_RULES, **accepting})


def delete(netns: NetnsHandle, owner: Owner | Stale, ips: Sequence[Address] | None = None) -> None:
    """Let the owner's addresses through no more; which they are is looked up unless `ips` says it."""
    _TABLE.delete(netns, owner, None if ips is None else _anywhere(ips))


def holds(netns: NetnsHandle, owner: Owner | Stale, ips: Iterable[Address]) -> bool:
    """Whether any of these addresses is let through for the owner."""
    return any(owner.owns(label) for _, label in _TABLE.found(netns, _anywhere(ips)))


def expect_rules(netns: NetnsHandle, chains: Mapping[str, Sequence[str]] = _RULES) -> None:
    """Raise CniError unless these chains have as many rules as they should; to read them would take reading all."""
    family, _, table = TABLE.partition(" ")
    kernel = lookup(netns)
    for chain, rules in chains.items():
        count = kernel.rules(family, table, chain)
        if count < len(rules):
            raise CniError(
                f"chain {chain} of nftables table {TABLE} has {count} of its {len(rules)} rules",
                details=f"somebody has changed it; they are: {'; '.join(rules)}",
            )


def _elements(ips: Iterable[Address], admin_chain: str) -> list[Element]:
    if admin_chain == ADMIN_CHAIN:
        return [Element(f"{way}{ip.version}", str(ip)) for ip in ips for way in _ACCEPTED]
    return [_element_by_chain(way, ip, admin_chain) for ip in ips for way in _ACCEPTED]


def _element_by_chain(way: str, ip: Address, admin_chain: str) -> Element:
    chain = f"{way}-{admin_chain}"
    rules = "".join(f"add rule {TABLE} {chain} {rule}\n" for rule in _accepting(way, admin_chain))
    script = f"\nadd chain {TABLE} {admin_chain}\nadd chain {TABLE} {chain}\nflush chain {TABLE} {chain}\n{rules}"
    return Element(f"{way}{ip.version}-by-chain", str(ip), f"goto {chain}", rules=script)


def _anywhere(ips: Iterable[Address]) -> list[Element]:
    places = [f"{way}{{}}{rest}" for way in _ACCEPTED for rest in ("", "-by-chain")]
    return [Element(place.format(ip.version), str(ip)) for ip in ips for place in places]
