"""Forward rules by nftables: two set elements per address.

set from4 { 10.1.0.2 }     packets from the address are accepted
set to4   { 10.1.0.2 }     packets to the address are accepted if they belong to an established connection
chain CNI-ADMIN            the administrator's rules, evaluated first; pycni never flushes it
chain fence                drops packets between isolated bridges (see isolation.py)

The addresses of a network with another administrator's chain are in maps instead:

map from4-by-chain { 10.1.0.2 : goto from-MINE }

Maps are used only there, because the kernel validates every element of a verdict map each time that one is added.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pycni.kernel.firewall.families import FAMILY_NAMES
from pycni.kernel.firewall.nftables.elements import TABLE, Element, ElementTable
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.protocols import ForwardRulesBackend
from pycni.kernel.firewall.settings import ADMIN_CHAIN, FirewallSettings
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

_VERDICTS = {"from": "accept", "to": "ct state established,related accept"}  # by direction, as seen by the container
_FIELDS = {"from": "saddr", "to": "daddr"}


def _accepting_rules(direction: str, admin_chain: str) -> tuple[str, ...]:
    return f"jump {admin_chain}", "jump fence", _VERDICTS[direction]


def _forward_chain_rules() -> Iterator[str]:
    for direction, field in _FIELDS.items():
        for version, word in FAMILY_NAMES.items():
            yield f"{word} {field} vmap @{direction}{version}-by-chain"
            yield f"{word} {field} @{direction}{version} goto {direction}-{ADMIN_CHAIN}"
    yield "jump fence"


_RULES = {
    "fence": (
        "iifname . oifname @apart drop",
        "iifname @fenced oifname @fenced iifname . oifname != @own drop",
    ),
    **{f"{direction}-{ADMIN_CHAIN}": _accepting_rules(direction, ADMIN_CHAIN) for direction in _VERDICTS},
    "forward": tuple(_forward_chain_rules()),
}
_SETS = "".join(
    f"    set {direction}{version} {{ type ipv{version}_addr; }}\n"
    f"    map {direction}{version}-by-chain {{ type ipv{version}_addr : verdict; }}\n"
    for direction in _VERDICTS
    for version in FAMILY_NAMES
)

# No policy is given for chain forward: an existing chain keeps the one that the administrator may have set to drop.
SCRIPT = f"""
table {TABLE} {{
{_SETS}
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

_TABLE = ElementTable(TABLE, SCRIPT, ("from4", "from6", "to4", "to6"))


class NftablesForwardRules(ForwardRulesBackend):
    """Forward rules by set and map elements."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        what = f"accept forwarded packets of {', '.join(map(str, ips))}"
        _TABLE.create(self._netns, _elements(ips, settings.admin_chain), owner, what=what)

    def expect(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        chain = settings.admin_chain
        _TABLE.expect(self._netns, _elements(ips, chain), owner, what="forwarding")
        accepting = {f"{direction}-{chain}": _accepting_rules(direction, chain) for direction in _VERDICTS}
        expect_rules(self._netns, {**_RULES, **accepting})

    def delete(
        self,
        owner: Owner | Stale,
        settings: FirewallSettings,  # noqa: ARG002 - elements of all administrator's chains are removed
        ips: Sequence[Address] | None = None,
        *,
        unowned: bool = False,  # noqa: ARG002 - every element has a label
    ) -> None:
        _TABLE.delete(self._netns, owner, None if ips is None else _elements_of_all_chains(ips))

    def holds(self, owner: Owner | Stale, ips: Iterable[Address]) -> bool:
        """Return whether any of these addresses is accepted for the owner."""
        return any(owner.owns(label) for _, label in _TABLE.find(self._netns, _elements_of_all_chains(ips)))


def expect_rules(netns: NetnsHandle, chains: Mapping[str, Sequence[str]] = _RULES) -> None:
    """Raise CniError unless each chain has at least as many rules as given; the default is all static chains.

    The rules are counted and not compared. That would take a listing of the whole table.
    """
    family, _, table = TABLE.partition(" ")
    kernel = lookup(netns)
    for chain, rules in chains.items():
        count = kernel.count_rules(family, table, chain)
        if count < len(rules):
            raise CniError(
                f"chain {chain} of nftables table {TABLE} has {count} of its {len(rules)} rules",
                details=f"another program has changed the chain; the rules are: {'; '.join(rules)}",
            )


def _elements(ips: Iterable[Address], admin_chain: str) -> list[Element]:
    if admin_chain == ADMIN_CHAIN:
        return [Element(f"{direction}{ip.version}", str(ip)) for ip in ips for direction in _VERDICTS]
    return [_element_by_chain(direction, ip, admin_chain) for ip in ips for direction in _VERDICTS]


def _element_by_chain(direction: str, ip: Address, admin_chain: str) -> Element:
    chain = f"{direction}-{admin_chain}"
    rules = "".join(f"add rule {TABLE} {chain} {rule}\n" for rule in _accepting_rules(direction, admin_chain))
    script = f"\nadd chain {TABLE} {admin_chain}\nadd chain {TABLE} {chain}\nflush chain {TABLE} {chain}\n{rules}"
    return Element(f"{direction}{ip.version}-by-chain", str(ip), f"goto {chain}", chain_script=script)


def _elements_of_all_chains(ips: Iterable[Address]) -> list[Element]:
    sets = [f"{direction}{{}}{suffix}" for direction in _VERDICTS for suffix in ("", "-by-chain")]
    return [Element(name.format(ip.version), str(ip)) for ip in ips for name in sets]
