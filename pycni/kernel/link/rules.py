"""Policy rules: what comes from an address is routed by a table of its own (ip rule)."""

import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from pycni.kernel.link import links
from pycni.kernel.link.addresses import FAMILIES
from pycni.kernel.link.links import explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

_TO_TABLE = 1  # FR_ACT_TO_TBL
_PLAIN = {"FRA_SRC", "FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_SUPPRESS_PREFIXLEN"}
_FIRST, _LAST = 100, 1 << 31  # the tables that are handed out
_OF_THE_KERNEL = (253, 254, 255)  # default, main, local


@dataclass(frozen=True, slots=True)
class Rule:
    """`from SOURCE lookup TABLE`; the kernel chooses the priority: before all there are, but the one of table local."""

    source: Address
    table: int
    priority: int | None = None

    def __str__(self) -> str:
        return f"rule from {self.source} lookup {self.table}"

    def message(self, kind: int, flags: int = 0) -> Message:
        """The request that adds or removes it."""
        attributes: list[tuple[str, Any]] = [("FRA_SRC", str(self.source)), ("FRA_TABLE", self.table)]
        if self.priority is not None:
            attributes.append(("FRA_PRIORITY", self.priority))
        fields = {
            "family": FAMILIES[self.source.version],
            "src_len": self.source.max_prefixlen,
            "table": self.table if self.table < 256 else 0,
            "action": _TO_TABLE,
        }
        return Message(kind, flags | rtnetlink.ACK, fields, attributes)


def of(netns: NetnsHandle, sources: Collection[Address]) -> list[Rule]:
    """The rules about packets from just one of these addresses."""
    versions = {source.version for source in sources}
    rules = [_rule(answer) for version in versions for answer in _all(netns, version)]
    return [rule for rule in rules if rule is not None and rule.source in sources]


def _rule(answer: Any) -> Rule | None:
    """The rule, if it is about packets from one address and nothing else."""
    if answer["action"] != _TO_TABLE or {name for name, _ in answer["attrs"]} - _PLAIN:
        return None
    source = ip_address(answer.get_attr("FRA_SRC") or 0)
    if answer["src_len"] != source.max_prefixlen:
        return None
    return Rule(source, answer.get_attr("FRA_TABLE"), answer.get_attr("FRA_PRIORITY"))


def create(netns: NetnsHandle, rule: Rule) -> None:
    """Add the rule in the place of others about the same source, which an ADD that was killed has left."""
    netns.journal.change(f"add {rule}", partial(_add, netns, rule), partial(delete, netns, [rule.source], rule.table))


def expect(netns: NetnsHandle, source: Address, table: int | None = None) -> int:
    """The table by which packets from the address are routed. Raises CniError unless there is a rule, for `table`."""
    tables = [rule.table for rule in of(netns, [source]) if table in (None, rule.table)]
    if not tables:
        raise CniError(f"the rule from {source} lookup {table or 'a table of its own'} is missing")
    return tables[0]


def delete(netns: NetnsHandle, sources: Collection[Address], table: int | None = None) -> None:
    """Remove the rules about these sources, or those of them for the table; gone is fine."""
    doomed = [rule for rule in of(netns, sources) if table in (None, rule.table)]
    messages = (rule.message(rtnetlink.DELRULE) for rule in doomed)
    for rule, outcome in zip(doomed, netns.netlink.outcomes(*messages), strict=True):
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.ENOENT:
            with explained(f"cannot remove the {rule}"):
                raise outcome


def free_table(netns: NetnsHandle, first: int = _FIRST) -> int:
    """The first table, from `first` on, that no rule and no VRF leads to, and no route is in."""
    rules = (answer.get_attr("FRA_TABLE") for version in FAMILIES for answer in _all(netns, version))
    vrfs = (state.table for state in links.all_states(netns))
    taken = {*rules, *vrfs, *_tables_with_routes(netns), *_OF_THE_KERNEL}
    return next(table for table in range(first, _LAST) if table not in taken)


def _add(netns: NetnsHandle, rule: Rule) -> None:
    delete(netns, [rule.source], rule.table)
    with explained(f"cannot add the {rule}"):
        netns.netlink.request(rule.message(rtnetlink.NEWRULE, rtnetlink.CREATE | rtnetlink.EXCLUSIVE))


def _all(netns: NetnsHandle, version: int) -> list[Any]:
    return netns.netlink.dump(Message(rtnetlink.GETRULE, 0, {"family": FAMILIES[version]}, []))


def _tables_with_routes(netns: NetnsHandle) -> Iterable[int]:
    for family in FAMILIES.values():
        for answer in netns.netlink.dump(Message(rtnetlink.GETROUTE, 0, {"family": family}, [])):
            yield answer.get_attr("RTA_TABLE") or answer["table"]
