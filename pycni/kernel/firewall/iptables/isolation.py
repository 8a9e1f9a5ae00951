"""Isolation of bridges by iptables: two stages of shared chains, and rules per bridge, as the Go plugins create them.

-A FORWARD … -j CNI-ISOLATION-STAGE-1                       before the jump to CNI-FORWARD
-A CNI-ISOLATION-STAGE-1 -i br0 -o br0 … -j DROP            strict isolation: within the bridge
-A CNI-ISOLATION-STAGE-1 -i br0 ! -o br0 … -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-2 -o br0 … -j DROP

The rules do not tell which attachments need them. They are removed when the bridge has no ports of others any more.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from pycni.kernel.firewall.iptables.forward_rules import FILTER, FORWARD, ISOLATION
from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, words
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.firewall.protocols import IsolationBackend
from pycni.kernel.firewall.settings import BridgeIsolation
from pycni.kernel.link.link_state import all_states
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_FIRST, _SECOND = ISOLATION, "CNI-ISOLATION-STAGE-2"
_PROGRAMS = {4: "iptables", 6: "ip6tables"}

InUse = Callable[[], Collection[str]]  # returns the names of bridges that must stay isolated


def _commented(rule: str, policy: str = "same-bridge|isolated") -> str:
    start, target = rule.rsplit(" -j ", 1)
    return f'{start} -m comment --comment "CNI firewall plugin rules (ingressPolicy: {policy})" -j {target}'


_JUMP = _commented(f"-A {FORWARD} -j {_FIRST}")
_RETURNS = [_commented(f"-A {chain} -j RETURN") for chain in (_FIRST, _SECOND)]


class IptablesIsolation(IsolationBackend):
    """Isolation in chains CNI-ISOLATION-STAGE-1 and -2."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, isolation: BridgeIsolation, owner: Owner) -> None:
        rules = _Rules(isolation.bridge, strict=isolation.strict)
        for version in sorted(isolation.versions):
            table = Table(self._netns, version, FILTER)
            self._netns.journal.change(
                f"isolate bridge {isolation.bridge} by {_PROGRAMS[version]}",
                # Always listed, under the lock: a DEL that removes the rules of unused bridges lists ports under it.
                partial(table.edit, rules.addition),
                partial(table.edit, partial(_removal, self._in_use(owner, isolation))),
                atomic=True,
            )

    def expect(self, isolation: BridgeIsolation, owner: Owner) -> None:  # noqa: ARG002 - the rules have no label
        tables = tables_with(self._netns, FILTER, _FIRST)
        rules = _Rules(isolation.bridge, strict=isolation.strict)
        for version in sorted(isolation.versions):
            listings = [table.listing() for table in tables if table.version == version]
            missing = [rules.first_missing(listing) for listing in listings]
            if None not in missing:
                rule = f': there is no "{missing[0]}"' if missing else ""
                raise CniError(f"isolation of {isolation.bridge} is missing in {_PROGRAMS[version]}{rule}")

    def delete(self, owner: Owner | Stale, isolation: BridgeIsolation | None = None) -> None:
        for table in tables_with(self._netns, FILTER, _FIRST):
            table.edit(partial(_removal, self._in_use(owner, isolation)))

    def _in_use(self, owner: Owner | Stale, isolation: BridgeIsolation | None) -> InUse:
        return partial(_bridges_in_use, self._netns, owner, isolation)


def _bridges_in_use(netns: NetnsHandle, owner: Owner | Stale, isolation: BridgeIsolation | None) -> Collection[str]:
    """Return the bridges with ports that are not the owner's, and the links of others that are not bridges.

    With plugins such as ptp, the isolated "bridge" is the host's end of a veth pair.
    """
    own = {isolation.bridge, *isolation.ports} if isolation else set()
    if isinstance(owner, Owner):
        own.add(owner.host_ifname)
    states = all_states(netns)
    names = {state.index: state.name for state in states}
    others = [state for state in states if state.name not in own and not owner.owns(state.alias)]
    return {names.get(state.master, "") for state in others if state.master} | {
        state.name for state in others if state.kind != "bridge"
    }


@dataclass(frozen=True)
class _Rules:
    """The rules of a bridge with the shared rules, and the lines that create them."""

    bridge: str
    strict: bool

    @property
    def own(self) -> list[str]:
        """The rules of the bridge itself."""
        policy = "isolated" if self.strict else "same-bridge"
        within = _commented(f"-A {_FIRST} -i {self.bridge} -o {self.bridge} -j DROP", policy)
        across = _commented(f"-A {_FIRST} -i {self.bridge} ! -o {self.bridge} -j {_SECOND}", policy)
        dropped = _commented(f"-A {_SECOND} -o {self.bridge} -j DROP")
        return [dropped, across, within] if self.strict else [dropped, across]

    def addition(self, before: Listing) -> list[str]:
        """Return the lines after which all rules exist once, and none of another policy or of older Go releases."""
        lines = [f"-N {chain}" for chain in (_FIRST, _SECOND) if chain not in before]
        lines += _jump_at_head(before)
        for rule in _RETURNS:
            lines += _one_return(before, rule)
        wanted = [words(rule) for rule in self.own]
        for existing in _of_bridges(before, {self.bridge}):
            if words(existing) not in wanted:
                lines.append(deletion(existing))
        return lines + [line for rule in self.own for line in before.once(rule, at_head=True)]

    def first_missing(self, listing: Listing) -> str | None:
        """Return the first missing rule, or None. Comments may differ: they do between releases of the Go plugins."""
        if not any(_is_jump(rule) for rule in listing.chains.get(FORWARD, ())):
            return _JUMP
        existing = [_without_comment(rule) for rule in _of_bridges(listing, {self.bridge})]
        return next((rule for rule in self.own if _without_comment(rule) not in existing), None)


def _removal(in_use: InUse, before: Listing) -> list[str]:
    """Return the lines that remove the rules of all bridges that are not in use."""
    stages = ((_FIRST, "-i"), (_SECOND, "-o"))
    bridges = {option(rule, name) for chain, name in stages for rule in _rules(before, chain)} - {""}
    unused = bridges - set(in_use()) if bridges else bridges
    return [deletion(rule) for rule in _of_bridges(before, unused)]


def _of_bridges(listing: Listing, bridges: Collection[str]) -> list[str]:
    return [
        *(rule for rule in _rules(listing, _FIRST) if option(rule, "-i") in bridges),
        *(rule for rule in _rules(listing, _SECOND) if option(rule, "-o") in bridges),
    ]


def _rules(listing: Listing, chain: str) -> list[str]:
    return list(listing.chains.get(chain, ()))


def _jump_at_head(before: Listing) -> list[str]:
    """Return the lines after which FORWARD has one jump to the first stage, before the jump to CNI-FORWARD."""
    jumps = [rule for rule in _rules(before, FORWARD) if _is_jump(rule)]
    targets = [option(rule, "-j") for rule in _rules(before, FORWARD)]
    if len(jumps) == 1 and ("CNI-FORWARD" not in targets or targets.index(_FIRST) < targets.index("CNI-FORWARD")):
        return []
    return [*map(deletion, jumps), f"-I{_JUMP[2:]}"]


def _one_return(before: Listing, rule: str) -> list[str]:
    """Return the lines after which the chain has one RETURN rule, at its end."""
    existing = [other for other in _rules(before, rule.split(" ", 2)[1]) if option(other, "-j") == "RETURN"]
    return [deletion(other) for other in existing[1:]] if existing else [rule]


def _is_jump(rule: str) -> bool:
    return option(rule, "-j") == _FIRST


def _without_comment(rule: str) -> list[str]:
    found = words(rule)
    at = found.index("--comment") if "--comment" in found else None
    return found if at is None else found[: at - 2] + found[at + 2 :]
