"""The attribute `rules` of a namespace: policy rules that route packets from one address by a table of their own.

They are what `ip rule` shows as "from ADDRESS lookup TABLE".
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from pycni.kernel.link.address_requests import FAMILIES
from pycni.kernel.link.link_state import all_states
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors
from pycni.kernel.netns import lock
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.address import Address
from pycni.protocol.errors import CniError

_TO_TABLE = 1  # FR_ACT_TO_TBL
_SUPPORTED = {"FRA_SRC", "FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_SUPPRESS_PREFIXLEN"}
_FIRST_TABLE, _LAST_TABLE = 100, 1 << 31  # of the tables that are chosen here
_RESERVED_TABLES = (253, 254, 255)  # default, main, local


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule `from SOURCE lookup TABLE`.

    Without a priority the kernel puts a new rule before all others except the one of table local.
    """

    source: Address
    table: int
    priority: int | None = None

    def __str__(self) -> str:
        return f"rule from {self.source} lookup {self.table}"

    def message(self, kind: int, flags: int = 0) -> Message:
        """Return the request that adds or removes the rule."""
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


class SourceRules(NetnsOperations):
    """The policy rules of a network namespace that match one source address."""

    __slots__ = ()

    def create(self, source: Address, table: int | None = None) -> int:
        """Route packets from the address by this table, or by a free one if it is None; return the table.

        Rules for the same source and table are replaced: an ADD that was killed may have left one. Hold
        `routes.lock_tables()` meanwhile. Raises CniError.
        """
        if table is None:
            table = free_table(self._netns)
        rule = Rule(source, table)
        self._netns.journal.change(f"add {rule}", partial(self._add, rule), partial(self._delete, [source], table))
        return table

    def expect(self, source: Address, table: int | None = None) -> int:
        """Return the table by which packets from the address are routed.

        Raises CniError unless there is such a rule; with `table`, a rule for that table.
        """
        tables = [rule.table for rule in list_rules(self._netns, [source]) if table in (None, rule.table)]
        if not tables:
            raise CniError(f"the rule from {source} lookup {table or 'a table of its own'} is missing")
        return tables[0]

    def delete(self, sources: Collection[Address], table: int | None = None) -> None:
        """Delete the rules for these source addresses; with `table`, only rules for that table. Go on if this fails."""
        self._netns.journal.attempt("delete rules of source addresses", partial(self._delete, sources, table))

    def _add(self, rule: Rule) -> None:
        self._delete([rule.source], rule.table)
        with explain_errors(f"cannot add the {rule}"):
            self._netns.netlink.request(rule.message(rtnetlink.NEWRULE, rtnetlink.CREATE | rtnetlink.EXCLUSIVE))

    def _delete(self, sources: Collection[Address], table: int | None) -> None:
        rules = [rule for rule in list_rules(self._netns, sources) if table in (None, rule.table)]
        messages = (rule.message(rtnetlink.DELRULE) for rule in rules)
        for rule, outcome in zip(rules, self._netns.netlink.outcomes(*messages), strict=True):
            if isinstance(outcome, NetlinkError) and outcome.errno != errno.ENOENT:
                with explain_errors(f"cannot remove the {rule}"):
                    raise outcome


def list_rules(netns: NetnsHandle, sources: Collection[Address]) -> list[Rule]:
    """Return the rules that match exactly one of these source addresses and nothing else."""
    versions = {source.version for source in sources}
    rules = [_rule(answer) for version in versions for answer in _dump(netns, version)]
    return [rule for rule in rules if rule is not None and rule.source in sources]


def _rule(answer: Any) -> Rule | None:
    """Return the rule, or None if it has another action or matches more than one source address."""
    if answer["action"] != _TO_TABLE or {name for name, _ in answer["attrs"]} - _SUPPORTED:
        return None
    source = ip_address(answer.get_attr("FRA_SRC") or 0)
    if answer["src_len"] != source.max_prefixlen:
        return None
    return Rule(source, answer.get_attr("FRA_TABLE"), answer.get_attr("FRA_PRIORITY"))


def lock_tables(netns: NetnsHandle) -> AbstractContextManager[None]:
    """Return a lock that keeps other calls from choosing a free routing table, or using or freeing one."""
    return lock.locked(netns, "choosing a routing table")


def free_table(netns: NetnsHandle, first: int = _FIRST_TABLE) -> int:
    """Return the first table, from `first` on, that no rule and no VRF uses and that has no routes."""
    rules = (answer.get_attr("FRA_TABLE") for version in FAMILIES for answer in _dump(netns, version))
    vrfs = (state.table for state in all_states(netns))
    used = {*rules, *vrfs, *_tables_with_routes(netns), *_RESERVED_TABLES}
    return next(table for table in range(first, _LAST_TABLE) if table not in used)


def _dump(netns: NetnsHandle, version: int) -> list[Any]:
    return netns.netlink.dump(Message(rtnetlink.GETRULE, 0, {"family": FAMILIES[version]}, []))


def _tables_with_routes(netns: NetnsHandle) -> Iterable[int]:
    for family in FAMILIES.values():
        for answer in netns.netlink.dump(Message(rtnetlink.GETROUTE, 0, {"family": family}, [])):
            yield answer.get_attr("RTA_TABLE") or answer["table"]
