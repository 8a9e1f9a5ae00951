"""Masquerading by iptables: a chain per container and network, and a jump to it per address, as in the Go plugins.

-A POSTROUTING -s 10.1.0.2/32 … -j CNI-d976123710b0229df0e9617c          for each address of any interface
-A CNI-d976123710b0229df0e9617c -d 10.1.0.0/24 … -j ACCEPT                packets to own subnets are not masqueraded
-A CNI-d976123710b0229df0e9617c ! -d 224.0.0.0/4 … -j MASQUERADE          nor are those to multicast
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface

from pycni.kernel.firewall.families import HOST_LENGTHS, MULTICAST, by_version
from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, quoted
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.firewall.protocols import MasqueradeBackend
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError

_NAT, _POSTROUTING = "nat", "POSTROUTING"
_CHAIN_NAME = re.compile(r"CNI-[0-9a-f]{24}")


class IptablesMasquerade(MasqueradeBackend):
    """Masquerading in chains CNI-…, whose names are a hash of network and container id."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        for version, own in by_version(cidrs).items():
            chain, table = _Chain.of(owner, version), Table(self._netns, version, _NAT)
            addresses = ", ".join(str(cidr.ip) for cidr in own)
            self._netns.journal.change(
                f"masquerade {addresses} by iptables",
                partial(table.change, chain.creation(own), partial(chain.addition, own)),
                partial(table.delete_chain, chain.name, chain.jumps(own), partial(chain.removal, _has_source_in(own))),
                atomic=True,
            )

    def expect(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        for version, own in by_version(cidrs).items():
            chain = _Chain.of(owner, version)
            rules = chain.rules([cidr.network for cidr in own]) + chain.jumps(own)
            tables = [table for table in tables_with(self._netns, _NAT, chain.name) if table.version == version]
            missing = [table.first_missing(rules) for table in tables]
            if None not in missing:
                what = f'"{missing[0]}"' if missing else f"chain {chain.name}"
                raise CniError(f"masquerading of {own[0].ip} is missing in iptables: there is no {what}")

    def delete(self, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()) -> None:
        if isinstance(owner, Stale):
            for table in tables_with(self._netns, _NAT, _POSTROUTING):
                table.edit(partial(_removal_of_stale, owner, table.version))
            return
        groups = None if cidrs is None else by_version(cidrs)
        for table in tables_with(self._netns, _NAT, owner.container_name("CNI-", 28)):
            chain = _Chain.of(owner, table.version)
            if groups is None:
                table.edit(partial(chain.removal, lambda jump: not _is_source_in(jump, kept)))
            elif own := groups.get(table.version):
                table.delete_chain(chain.name, chain.jumps(own), partial(chain.removal, _has_source_in(own)))


@dataclass(frozen=True)
class _Chain:
    """The chain of a container on a network, and the lines that create and change it."""

    name: str
    comment: str
    version: int

    @classmethod
    def of(cls, owner: Owner, version: int) -> "_Chain":
        comment = f'{_comment_prefix(owner.network)}{owner.container_id}"'
        return cls(owner.container_name("CNI-", 28), f"-m comment --comment {quoted(comment)}", version)

    def jumps(self, cidrs: Iterable[Cidr]) -> list[str]:
        """Return the rules that jump to it, one per address."""
        length = HOST_LENGTHS[self.version]
        return [f"-A {_POSTROUTING} -s {cidr.ip}/{length} {self.comment} -j {self.name}" for cidr in cidrs]

    def rules(self, subnets: Iterable[object]) -> list[str]:
        """Return its rules for containers in these subnets."""
        accepted = [
            f"-A {self.name} -d {subnet} {self.comment} -j ACCEPT" for subnet in dict.fromkeys(map(str, subnets))
        ]
        return [*accepted, f"-A {self.name} ! -d {MULTICAST[self.version]} {self.comment} -j MASQUERADE"]

    def creation(self, cidrs: Sequence[Cidr]) -> list[str]:
        """Return the lines that create it with its jumps. They change nothing and fail if the chain exists."""
        return [f"-N {self.name}", *self.rules(cidr.network for cidr in cidrs), *self.jumps(cidrs)]

    def addition(self, cidrs: Sequence[Cidr], before: Listing) -> list[str]:
        """Return the lines that add addresses to the existing chain, of another interface or left behind."""
        lines = self._replacement([*self._subnets(before), *(cidr.network for cidr in cidrs)])
        return lines + [line for jump in self.jumps(cidrs) for line in before.once(jump)]

    def removal(self, selects: Callable[[str], bool], before: Listing) -> list[str]:
        """Return the lines that remove the jumps which `selects` selects, and with the last jump the chain."""
        if self.name not in before:
            return []
        jumps = list(before.rules_to(self.name))
        remaining = [jump for jump in jumps if not selects(jump)]
        lines = [deletion(jump) for jump in jumps if selects(jump)]
        if not remaining:
            return [*lines, f"-F {self.name}", f"-X {self.name}"]
        if not lines:
            return []
        subnets = [net for net in self._subnets(before) if any(_is_source_inside(jump, net) for jump in remaining)]
        return lines + self._replacement(subnets)

    def _subnets(self, before: Listing) -> list[str]:
        rules = before.chains.get(self.name, ())
        return [option(rule, "-d") for rule in rules if option(rule, "-j") == "ACCEPT" and option(rule, "-d")]

    def _replacement(self, subnets: Iterable[object]) -> list[str]:
        """Return the lines that replace the rules of the chain: its declaration flushes it."""
        return [f":{self.name} - [0:0]", *self.rules(subnets)]


def _comment_prefix(network: str) -> str:
    return f'name: "{network}" id: "'


def _has_source_in(cidrs: Collection[Cidr]) -> Callable[[str], bool]:
    return lambda jump: _is_source_in(jump, cidrs)


def _is_source_in(jump: str, cidrs: Iterable[Cidr]) -> bool:
    """Return whether a jump is for one of the addresses. Go plugins before 2017 made one for the whole subnet."""
    source = option(jump, "-s")
    return source in {_host(cidr.ip) for cidr in cidrs} | {str(cidr.network) for cidr in cidrs}


def _host(ip: Address) -> str:
    return str(ip_interface(ip))


def _is_source_inside(jump: str, subnet: str) -> bool:
    source = option(jump, "-s")
    return not source or ip_interface(source).network.overlaps(ip_interface(subnet).network)


def _removal_of_stale(stale: Stale, version: int, before: Listing) -> list[str]:
    """Return the lines that remove every chain of the network which belongs to no valid container."""
    valid = {_Chain.of(owner, version).name for owner in stale.valid}
    prefix = _comment_prefix(stale.network)
    lines = []
    for name in filter(_CHAIN_NAME.fullmatch, before.chains):
        rules = [*before.chains[name], *before.rules_to(name)]
        if name not in valid and any(option(rule, "--comment").startswith(prefix) for rule in rules):
            lines += _Chain(name, "", version).removal(lambda _: True, before)
    return lines
