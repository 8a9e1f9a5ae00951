"""Isolation by iptables: two stages of shared chains, and rules a bridge, as the Go plugins make them.

-A FORWARD … -j CNI-ISOLATION-STAGE-1                       before CNI-FORWARD
-A CNI-ISOLATION-STAGE-1 -i br0 -o br0 … -j DROP            if it is isolated within itself
-A CNI-ISOLATION-STAGE-1 -i br0 ! -o br0 … -j CNI-ISOLATION-STAGE-2
-A CNI-ISOLATION-STAGE-2 -o br0 … -j DROP
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from pycni.kernel.firewall.iptables.forward import FILTER, FORWARD, ISOLATION
from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, words
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.errors import CniError

_FIRST, _SECOND = ISOLATION, "CNI-ISOLATION-STAGE-2"

InUse = Callable[[], Collection[str]]  # the bridges that still have ports


def _commented(rule: str, policy: str = "same-bridge|isolated") -> str:
    start, target = rule.rsplit(" -j ", 1)
    return f'{start} -m comment --comment "CNI firewall plugin rules (ingressPolicy: {policy})" -j {target}'


_JUMP = _commented(f"-A {FORWARD} -j {_FIRST}")
_RETURNS = [_commented(f"-A {chain} -j RETURN") for chain in (_FIRST, _SECOND)]


def create(netns: NetnsHandle, bridge: str, versions: Iterable[int], in_use: InUse, *, strict: bool) -> None:
    """Keep the bridge apart from all others that are; with `strict` its ports from each other too."""
    rules = _Rules(bridge, strict=strict)
    for version in versions:
        table = Table(netns, version, FILTER)
        netns.journal.change(
            f"isolate {bridge} by {'iptables' if version == 4 else 'ip6tables'}",
            partial(table.edit, rules.addition),  # listed under the lock: who removes a bridge's rules looks there too
            partial(table.edit, partial(_removal, in_use)),
        )


def expect(netns: NetnsHandle, bridge: str, versions: Iterable[int], *, strict: bool) -> None:
    """Raise CniError unless the bridge is kept apart."""
    tables = tables_with(netns, FILTER, _FIRST)
    for version in versions:
        listings = [table.listing() for table in tables if table.version == version]
        missing = [_Rules(bridge, strict=strict).first_missing(listing) for listing in listings]
        if None not in missing:
            rule = f': there is no "{missing[0]}"' if missing else ""
            raise CniError(f"isolation of {bridge} is missing in {'iptables' if version == 4 else 'ip6tables'}{rule}")


def delete(netns: NetnsHandle, in_use: InUse) -> None:
    """Remove the rules of bridges that are not in use any more."""
    for table in tables_with(netns, FILTER, _FIRST):
        table.edit(partial(_removal, in_use))


@dataclass(frozen=True)
class _Rules:
    """What stands for a bridge, and the lines that make it."""

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
        """The lines after which all stands there once, and nothing of another policy, or by an older release."""
        lines = [f"-N {chain}" for chain in (_FIRST, _SECOND) if chain not in before]
        lines += _jump_at_head(before)
        for rule in _RETURNS:
            lines += _one_return(before, rule)
        wanted = [words(rule) for rule in self.own]
        for there in _of_bridges(before, {self.bridge}):
            if words(there) not in wanted:
                lines.append(deletion(there))
        return lines + [line for rule in self.own for line in before.once(rule, at_head=True)]

    def first_missing(self, listing: Listing) -> str | None:
        """The first of the rules that is not there, by whichever release of the Go plugins."""
        if not any(_is_jump(rule) for rule in listing.chains.get(FORWARD, ())):
            return _JUMP
        there = [_without_comment(rule) for rule in _of_bridges(listing, {self.bridge})]
        return next((rule for rule in self.own if _without_comment(rule) not in there), None)


def _removal(in_use: InUse, before: Listing) -> list[str]:
    """The lines that remove the rules of all bridges that are not in use."""
    stages = ((_FIRST, "-i"), (_SECOND, "-o"))
    bridges = {option(rule, name) for chain, name in stages for rule in _rules(before, chain)} - {""}
    gone = bridges - set(in_use()) if bridges else bridges
    return [deletion(rule) for rule in _of_bridges(before, gone)]


def _of_bridges(listing: Listing, bridges: Collection[str]) -> list[str]:
    return [
        *(rule for rule in _rules(listing, _FIRST) if option(rule, "-i") in bridges),
        *(rule for rule in _rules(listing, _SECOND) if option(rule, "-o") in bridges),
    ]


def _rules(listing: Listing, chain: str) -> list[str]:
    return list(listing.chains.get(chain, ()))


def _jump_at_head(before: Listing) -> list[str]:
    """The lines after which there is one jump, before what lets through; Go releases differ in its comment."""
    jumps = [rule for rule in _rules(before, FORWARD) if _is_jump(rule)]
    targets = [option(rule, "-j") for rule in _rules(before, FORWARD)]
    if len(jumps) == 1 and ("CNI-FORWARD" not in targets or targets.index(_FIRST) < targets.index("CNI-FORWARD")):
        return []
    return [*map(deletion, jumps), f"-I{_JUMP[2:]}"]


def _one_return(before: Listing, rule: str) -> list[str]:
    """The lines after which the chain ends by returning, once."""
    there = [other for other in _rules(before, rule.split(" ", 2)[1]) if option(other, "-j") == "RETURN"]
    return [deletion(other) for other in there[1:]] if there else [rule]


def _is_jump(rule: str) -> bool:
    return option(rule, "-j") == _FIRST


def _without_comment(rule: str) -> list[str]:
    found = words(rule)
    at = found.index("--comment") if "--comment" in found else None
    return found if at is None else found[: at - 2] + found[at + 2 :]
