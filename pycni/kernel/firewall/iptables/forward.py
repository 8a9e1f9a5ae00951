"""Forwarding by iptables: two rules an address, without a comment, as the Go plugins make them and find them again.

-A FORWARD … -j CNI-FORWARD                                                     shared, and so is the next
-A CNI-FORWARD … -j CNI-ADMIN                                                   the administrator's chain
-A CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pycni.kernel.firewall.iptables.listing import Listing, deletion, option
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Abandoned, Owner, Stale
from pycni.protocol.address import Address, parse_ip
from pycni.protocol.errors import CniError

FILTER, FORWARD = "filter", "FORWARD"
ISOLATION = "CNI-ISOLATION-STAGE-1"
_CHAIN = "CNI-FORWARD"
_JUMP = f'-A {FORWARD} -m comment --comment "CNI firewall plugin rules" -j {_CHAIN}'
_BACKEND = "iptables"


def create(netns: NetnsHandle, ips: Sequence[Address], owner: Owner, admin_chain: str) -> None:
    """Let through what comes from these addresses, and what belongs to it."""
    is_known = bool(address_owners.entries(netns, _BACKEND, ips))
    address_owners.create(netns, _BACKEND, ips, owner)
    for version, own in _by_family(ips).items():
        table, rules = Table(netns, version, FILTER), _Rules(own, admin_chain)
        netns.journal.change(
            f"let {', '.join(map(str, own))} through by iptables",
            partial(table.edit, rules.addition) if is_known else partial(table.change, rules.usual, rules.addition),
            partial(_delete, netns, own),
        )


def expect(netns: NetnsHandle, ips: Sequence[Address], admin_chain: str) -> None:
    """Raise CniError unless these addresses are let through."""
    for version, own in _by_family(ips).items():
        rules = [_JUMP, *_Rules(own, admin_chain).all]
        tables = [table for table in tables_with(netns, FILTER, _CHAIN) if table.version == version]
        missing = [table.first_missing(rules) for table in tables]
        if None in missing:
            continue
        _, chain, words = (next(filter(None, missing), None) or _JUMP).split(" ", 2)
        raise CniError(f"expected rule [{words}] not found", details=f"it is of iptables, chain {chain}")


def delete(
    netns: NetnsHandle, owner: Owner | Stale, ips: Sequence[Address] | None = None, *, unregistered: bool = False
) -> None:
    """Let the owner's addresses through no more: those registered.

    With `unregistered`, those of `ips` too that nobody is registered for: a Go plugin may have made their rules.
    """
    entries = address_owners.entries(netns, _BACKEND, ips)
    own = [ip for ip, label in entries if owner.owns(label)]
    known = {ip for ip, _ in entries}
    _delete(netns, [*own, *(ip for ip in ips or () if unregistered and ip not in known)])
    address_owners.delete(netns, _BACKEND, owner, own)


def delete_unregistered(netns: NetnsHandle, abandoned: Abandoned) -> None:
    """Let those addresses through no more of which a Go plugin has left rules, and that are abandoned."""
    known = {ip for ip, _ in address_owners.entries(netns, _BACKEND)}
    for table in tables_with(netns, FILTER, _CHAIN):
        listing = table.listing()
        ips = {option(rule, "-s").partition("/")[0] for rule in listing.chains.get(_CHAIN, ())} - {""}
        nameless = [
            ip for ip in sorted(map(parse_ip, ips)) if ip not in known and _rules([ip])[1] in listing.chains[_CHAIN]
        ]
        if nameless and (doomed := abandoned(nameless)):
            table.edit(partial(_removal, doomed))


def _delete(netns: NetnsHandle, ips: Sequence[Address]) -> None:
    if not ips:
        return
    for table in tables_with(netns, FILTER, _CHAIN):
        if own := _by_family(ips).get(table.version):
            table.edit(partial(_removal, own))


@dataclass(frozen=True)
class _Rules:
    """The rules of some addresses of a family, and of what they share, and the lines that make them."""

    ips: Sequence[Address]
    admin_chain: str

    @property
    def admin_jump(self) -> str:
        return f'-A {_CHAIN} -m comment --comment "CNI firewall plugin admin overrides" -j {self.admin_chain}'

    @property
    def all(self) -> list[str]:
        """What is in the chain."""
        return [self.admin_jump, *_rules(self.ips)]

    @property
    def usual(self) -> list[str]:
        """The lines that suit where the chains are there, and nothing of the addresses."""
        return [f"-C{_JUMP[2:]}", f"-C{self.admin_jump[2:]}", *_rules(self.ips)]

    def addition(self, before: Listing) -> list[str]:
        """The lines after which each rule stands exactly once."""
        return [
            *(f"-N {chain}" for chain in (_CHAIN, self.admin_chain) if chain not in before),
            *_first_in_forward(before),
            *before.once(self.admin_jump, at_head=True),
            *(line for rule in _rules(self.ips) for line in before.once(rule)),
        ]


def _first_in_forward(before: Listing) -> list[str]:
    """The lines that put our jump at the head, but for isolation, which drops what this would let through."""
    lines = before.once(_JUMP, at_head=True)
    if before.count(_JUMP):
        return lines
    isolation = [rule for rule in before.chains.get(FORWARD, ()) if option(rule, "-j") == ISOLATION]
    return [*lines, *(line for rule in isolation for line in (deletion(rule), f"-I{rule[2:]}"))]


def _rules(ips: Iterable[Address]) -> list[str]:
    rules = []
    for ip in ips:
        host = f"{ip}/{ip.max_prefixlen}"
        rules += [
            f"-A {_CHAIN} -d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A {_CHAIN} -s {host} -j ACCEPT",
        ]
    return rules


def _removal(ips: Iterable[Address], before: Listing) -> list[str]:
    """The lines that remove the addresses' rules, however often they are there."""
    return [line for rule in _rules(ips) for line in [deletion(rule)] * before.count(rule)]


def _by_family(ips: Iterable[Address]) -> dict[int, list[Address]]:
    families: dict[int, list[Address]] = {}
    for ip in ips:
        families.setdefault(ip.version, []).append(ip)
    return families
