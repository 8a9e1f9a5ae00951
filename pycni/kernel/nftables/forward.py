"""Forwarding by nftables: what the host lets through from and to an attachment is two map elements an address.

map from4 { 10.1.0.2 : goto from-CNI-ADMIN }     everything from the address is accepted
map to4   { 10.1.0.2 : goto to-CNI-ADMIN }       to it, what belongs to a connection
chain CNI-ADMIN                                  the administrator's, asked before; it is never flushed
chain fence                                      which bridges are kept apart (isolation.py)
"""

from collections.abc import Iterable, Mapping, Sequence

from pycni.kernel.door import Door
from pycni.kernel.nftables.elements import Element, Table
from pycni.kernel.nftables.lookup import lookup
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

TABLE = "inet pycni"
_ACCEPTED = {"from": "accept", "to": "ct state established,related accept"}
_RULES = {
    "fence": (
        "iifname . oifname @apart drop",
        "iifname @fenced oifname @fenced iifname . oifname != @own drop",
    ),
    "forward": (
        "ip saddr vmap @from4",
        "ip daddr vmap @to4",
        "ip6 saddr vmap @from6",
        "ip6 daddr vmap @to6",
        "jump fence",
    ),
}

# The chain's policy is left as it is: an administrator may turn it to drop.
SCRIPT = """
table inet pycni {
    map from4 { type ipv4_addr : verdict; }
    map from6 { type ipv6_addr : verdict; }
    map to4 { type ipv4_addr : verdict; }
    map to6 { type ipv6_addr : verdict; }
    set fenced { type ifname; }
    set own { type ifname . ifname; }
    set apart { type ifname . ifname; }
    map fences { type ifname . ifname : verdict; }
    map walls { type ifname . ifname : verdict; }
    chain fence { }
    chain forward { type filter hook forward priority filter; }
}
""" + "".join(
    f"flush chain {TABLE} {chain}\n" + "".join(f"add rule {TABLE} {chain} {rule}\n" for rule in rules)
    for chain, rules in _RULES.items()
)

_TABLE = Table(TABLE, SCRIPT, ("from4", "from6", "to4", "to6"), kept_chains=("from-", "to-"))


def create(door: Door, ips: Sequence[Address], owner: Owner, admin_chain: str) -> None:
    """Let through what comes from these addresses, and what belongs to it."""
    words = ", ".join(map(str, ips))
    _TABLE.create(door, _elements(ips, admin_chain), owner, what=f"let {words} through")


def expect(door: Door, ips: Sequence[Address], owner: Owner, admin_chain: str) -> None:
    """Raise CniError unless these addresses are let through."""
    _TABLE.expect(door, _elements(ips, admin_chain), owner, what="forwarding")
    accepting = {f"{way}-{admin_chain}": _rules(way, admin_chain) for way in _ACCEPTED}
    expect_rules(door, {**_RULES, **accepting})


def delete(door: Door, owner: Owner | Stale, ips: Sequence[Address] | None = None) -> None:
    """Let the owner's addresses through no more; which they are is looked up unless `ips` says it."""
    _TABLE.delete(door, owner, None if ips is None else _elements(ips, ""))


def holds(door: Door, owner: Owner | Stale, ips: Iterable[Address]) -> bool:
    """Whether any of these addresses is let through for the owner."""
    return any(owner.owns(label) for _, label in _TABLE.found(door, _elements(ips, "")))


def expect_rules(door: Door, chains: Mapping[str, Sequence[str]] = _RULES) -> None:
    """Raise CniError unless these chains have as many rules as they should; to read them would take reading all."""
    family, _, table = TABLE.partition(" ")
    with lookup(door) as kernel:
        for chain, rules in chains.items():
            count = kernel.rules(family, table, chain)
            if count < len(rules):
                raise CniError(
                    f"chain {chain} of nftables table {TABLE} has {count} of its {len(rules)} rules",
                    details=f"somebody has changed it; they are: {'; '.join(rules)}",
                )


def _elements(ips: Iterable[Address], admin_chain: str) -> list[Element]:
    return [_element(way, ip, admin_chain) for ip in ips for way in _ACCEPTED]


def _element(way: str, ip: Address, admin_chain: str) -> Element:
    chain = f"{way}-{admin_chain}"
    rules = "".join(f"add rule {TABLE} {chain} {rule}\n" for rule in _rules(way, admin_chain))
    script = f"\nadd chain {TABLE} {admin_chain}\nadd chain {TABLE} {chain}\nflush chain {TABLE} {chain}\n{rules}"
    return Element(f"{way}{ip.version}", str(ip), f"goto {chain}", rules=script)


def _rules(way: str, admin_chain: str) -> tuple[str, ...]:
    return f"jump {admin_chain}", "jump fence", _ACCEPTED[way]
