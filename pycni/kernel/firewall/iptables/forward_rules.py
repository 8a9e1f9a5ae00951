"""Forward rules by iptables: two rules per address, without a comment, as the Go plugins create and find them.

-A FORWARD … -j CNI-FORWARD                                                     shared by all attachments
-A CNI-FORWARD … -j CNI-ADMIN                                                   shared; the administrator's chain
-A CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pycni.kernel.firewall.families import by_version
from pycni.kernel.firewall.iptables.listing import Listing, deletion, option
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.firewall.protocols import ForwardRulesBackend
from pycni.kernel.firewall.settings import FirewallSettings
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, SelectUnused, Stale
from pycni.protocol.address import Address, parse_ip
from pycni.protocol.errors import CniError

FILTER, FORWARD = "filter", "FORWARD"
ISOLATION = "CNI-ISOLATION-STAGE-1"
_CHAIN = "CNI-FORWARD"
_JUMP = f'-A {FORWARD} -m comment --comment "CNI firewall plugin rules" -j {_CHAIN}'


class IptablesForwardRules(ForwardRulesBackend):
    """Forward rules in chain CNI-FORWARD. `address_owners` records whose the addresses are."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, ips: Sequence[Address], owner: Owner, settings: FirewallSettings) -> None:
        # If an owner is recorded, the rules may exist already, and `usual_addition` would duplicate them.
        may_exist = bool(address_owners.find(self._netns, address_owners.IPTABLES, ips))
        address_owners.create(self._netns, address_owners.IPTABLES, ips, owner)
        for version, own in by_version(ips).items():
            table, rules = Table(self._netns, version, FILTER), _Rules(own, settings.admin_chain)
            self._netns.journal.change(
                f"accept forwarded packets of {', '.join(map(str, own))} by iptables",
                partial(table.edit, rules.addition)
                if may_exist
                else partial(table.change, rules.usual_addition, rules.addition),
                partial(self._delete_rules, own),
                atomic=True,
            )

    def expect(
        self,
        ips: Sequence[Address],
        owner: Owner,  # noqa: ARG002 - the rules have no label
        settings: FirewallSettings,
    ) -> None:
        for version, own in by_version(ips).items():
            rules = [_JUMP, *_Rules(own, settings.admin_chain).all]
            tables = [table for table in tables_with(self._netns, FILTER, _CHAIN) if table.version == version]
            missing = [table.first_missing(rules) for table in tables]
            if None in missing:
                continue
            _, chain, words = (next(filter(None, missing), None) or _JUMP).split(" ", 2)
            raise CniError(f"expected rule [{words}] not found", details=f"it belongs to chain {chain} of iptables")

    def delete(
        self,
        owner: Owner | Stale,
        settings: FirewallSettings,  # noqa: ARG002 - the jump to the administrator's chain is shared
        ips: Sequence[Address] | None = None,
        *,
        unowned: bool = False,
    ) -> None:
        entries = address_owners.find(self._netns, address_owners.IPTABLES, ips)
        own = [ip for ip, label in entries if owner.owns(label)]
        owned = {ip for ip, _ in entries}
        self._delete_rules([*own, *(ip for ip in ips or () if unowned and ip not in owned)])
        address_owners.delete(self._netns, address_owners.IPTABLES, owner, own)

    def delete_unowned(self, select_unused: SelectUnused) -> None:
        """Delete the rules of addresses that have no recorded owner and that `select_unused` returns."""
        owned = {ip for ip, _ in address_owners.find(self._netns, address_owners.IPTABLES)}
        for table in tables_with(self._netns, FILTER, _CHAIN):
            listing = table.listing()
            ips = {option(rule, "-s").partition("/")[0] for rule in listing.chains.get(_CHAIN, ())} - {""}
            unowned = [
                ip for ip in sorted(map(parse_ip, ips)) if ip not in owned and _rules([ip])[1] in listing.chains[_CHAIN]
            ]
            if unowned and (unused := select_unused(unowned)):
                table.edit(partial(_removal, unused))

    def _delete_rules(self, ips: Sequence[Address]) -> None:
        if not ips:
            return
        groups = by_version(ips)
        for table in tables_with(self._netns, FILTER, _CHAIN):
            if own := groups.get(table.version):
                table.edit(partial(_removal, own))


@dataclass(frozen=True)
class _Rules:
    """The rules of addresses of one IP version with the shared rules, and the lines that create them."""

    ips: Sequence[Address]
    admin_chain: str

    @property
    def admin_jump(self) -> str:
        return f'-A {_CHAIN} -m comment --comment "CNI firewall plugin admin overrides" -j {self.admin_chain}'

    @property
    def all(self) -> list[str]:
        """The rules in chain CNI-FORWARD."""
        return [self.admin_jump, *_rules(self.ips)]

    @property
    def usual_addition(self) -> list[str]:
        """The lines that create the rules if the shared rules exist. They change nothing and fail if those do not."""
        return [f"-C{_JUMP[2:]}", f"-C{self.admin_jump[2:]}", *_rules(self.ips)]

    def addition(self, before: Listing) -> list[str]:
        """Return the lines after which each rule exists exactly once."""
        return [
            *(f"-N {chain}" for chain in (_CHAIN, self.admin_chain) if chain not in before),
            *_jump_before_others(before),
            *before.once(self.admin_jump, at_head=True),
            *(line for rule in _rules(self.ips) for line in before.once(rule)),
        ]


def _jump_before_others(before: Listing) -> list[str]:
    """Return the lines that put the jump to CNI-FORWARD at the head of FORWARD, but after the jump to isolation."""
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
    """Return the lines that remove the rules of these addresses, including duplicates."""
    return [line for rule in _rules(ips) for line in [deletion(rule)] * before.count(rule)]
