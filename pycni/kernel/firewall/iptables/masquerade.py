"""Masquerading by iptables: a chain a container on a network, and a jump to it an address, as the Go plugins make them.

-A POSTROUTING -s 10.1.0.2/32 … -j CNI-d976123710b0229df0e9617c          one for each address of any interface
-A CNI-d976123710b0229df0e9617c -d 10.1.0.0/24 … -j ACCEPT                its own subnets stay as they are
-A CNI-d976123710b0229df0e9617c ! -d 224.0.0.0/4 … -j MASQUERADE          and so does multicast
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface

from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, quoted
from pycni.kernel.firewall.iptables.restore import Table, tables_with
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError

_NAT, _POSTROUTING = "nat", "POSTROUTING"
_CHAIN = re.compile(r"CNI-[0-9a-f]{24}")
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def create(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Hide these addresses behind the host's, towards everything outside their own subnets."""
    for version, own in _by_family(cidrs).items():
        chain, table = _Chain.of(owner, version), Table(netns, version, _NAT)
        words = ", ".join(str(cidr.ip) for cidr in own)
        netns.journal.change(
            f"masquerade {words} by iptables",
            partial(table.change, chain.creation(own), partial(chain.addition, own)),
            partial(table.delete_chain, chain.name, chain.jumps(own), partial(chain.removal, _leading_from(own))),
        )


def expect(netns: NetnsHandle, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Raise CniError unless these addresses are masqueraded."""
    for version, own in _by_family(cidrs).items():
        chain = _Chain.of(owner, version)
        rules = chain.rules([cidr.network for cidr in own]) + chain.jumps(own)
        tables = [table for table in tables_with(netns, _NAT, chain.name) if table.version == version]
        missing = [table.first_missing(rules) for table in tables]
        if None not in missing:
            what = f'"{missing[0]}"' if missing else f"chain {chain.name}"
            raise CniError(f"masquerading of {own[0].ip} is missing in iptables: there is no {what}")


def delete(
    netns: NetnsHandle, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None, *, kept: Collection[Cidr] = ()
) -> None:
    """Masquerade the owner's addresses no more: `cidrs` if they are known.

    iptables does not tell which of the container's interfaces has an address. So without `cidrs` all its addresses on
    the network go but those that are `kept`, by its other interfaces.
    """
    if isinstance(owner, Stale):
        for table in tables_with(netns, _NAT, _POSTROUTING):
            table.edit(partial(_removal_of_stale, owner, table.version))
        return
    families = None if cidrs is None else _by_family(cidrs)
    for table in tables_with(netns, _NAT, owner.container_name("CNI-", 28)):
        chain = _Chain.of(owner, table.version)
        if families is None:
            table.edit(partial(chain.removal, lambda jump: not _leads_from(jump, kept)))
        elif own := families.get(table.version):
            table.delete_chain(chain.name, chain.jumps(own), partial(chain.removal, _leading_from(own)))


@dataclass(frozen=True)
class _Chain:
    """The chain of a container on a network, and the lines that make and change it."""

    name: str
    comment: str
    version: int

    @classmethod
    def of(cls, owner: Owner, version: int) -> "_Chain":
        comment = f'{_comment_start(owner.network)}{owner.container_id}"'
        return cls(owner.container_name("CNI-", 28), f"-m comment --comment {quoted(comment)}", version)

    def jumps(self, cidrs: Iterable[Cidr]) -> list[str]:
        """The rules that lead to it."""
        length = 32 if self.version == 4 else 128
        return [f"-A {_POSTROUTING} -s {cidr.ip}/{length} {self.comment} -j {self.name}" for cidr in cidrs]

    def rules(self, subnets: Iterable[object]) -> list[str]:
        """Its rules for containers in these subnets."""
        accepted = [
            f"-A {self.name} -d {subnet} {self.comment} -j ACCEPT" for subnet in dict.fromkeys(map(str, subnets))
        ]
        return [*accepted, f"-A {self.name} ! -d {_MULTICAST[self.version]} {self.comment} -j MASQUERADE"]

    def creation(self, cidrs: Sequence[Cidr]) -> list[str]:
        """The lines that make it where it is not."""
        return [f"-N {self.name}", *self.rules(cidr.network for cidr in cidrs), *self.jumps(cidrs)]

    def addition(self, cidrs: Sequence[Cidr], before: Listing) -> list[str]:
        """The lines that add addresses to what is there, of another interface or left behind."""
        lines = self._rewritten([*self._subnets(before), *(cidr.network for cidr in cidrs)])
        return lines + [line for jump in self.jumps(cidrs) for line in before.once(jump)]

    def removal(self, goes: Callable[[str], bool], before: Listing) -> list[str]:
        """The lines that remove the jumps that go, and the chain with the last of them."""
        if self.name not in before:
            return []
        jumps = list(before.rules_to(self.name))
        left = [jump for jump in jumps if not goes(jump)]
        lines = [deletion(jump) for jump in jumps if goes(jump)]
        if not left:
            return [*lines, f"-F {self.name}", f"-X {self.name}"]
        if not lines:
            return []
        return lines + self._rewritten(
            [net for net in self._subnets(before) if any(_overlap(jump, net) for jump in left)]
        )

    def _subnets(self, before: Listing) -> list[str]:
        rules = before.chains.get(self.name, ())
        return [option(rule, "-d") for rule in rules if option(rule, "-j") == "ACCEPT" and option(rule, "-d")]

    def _rewritten(self, subnets: Iterable[object]) -> list[str]:
        return [f":{self.name} - [0:0]", *self.rules(subnets)]  # naming a chain so empties it


def _comment_start(network: str) -> str:
    return f'name: "{network}" id: "'


def _by_family(cidrs: Iterable[Cidr]) -> dict[int, list[Cidr]]:
    families: dict[int, list[Cidr]] = {}
    for cidr in cidrs:
        families.setdefault(cidr.version, []).append(cidr)
    return families


def _leading_from(cidrs: Collection[Cidr]) -> Callable[[str], bool]:
    return lambda jump: _leads_from(jump, cidrs)


def _leads_from(jump: str, cidrs: Iterable[Cidr]) -> bool:
    """Whether a jump is for one of these addresses; before 2017 jumps were made for the whole subnet."""
    source = option(jump, "-s")
    return source in {_host(cidr.ip) for cidr in cidrs} | {str(cidr.network) for cidr in cidrs}


def _host(ip: Address) -> str:
    return str(ip_interface(ip))


def _overlap(jump: str, subnet: str) -> bool:
    source = option(jump, "-s")
    return not source or ip_interface(source).network.overlaps(ip_interface(subnet).network)


def _removal_of_stale(stale: Stale, version: int, before: Listing) -> list[str]:
    """The lines that remove every chain of the network that no valid container has."""
    valid = {_Chain.of(owner, version).name for owner in stale.valid}
    lines = []
    for name in filter(_CHAIN.fullmatch, before.chains):
        rules = [*before.chains[name], *before.rules_to(name)]
        if name not in valid and any(option(r, "--comment").startswith(_comment_start(stale.network)) for r in rules):
            lines += _Chain(name, "", version).removal(lambda _: True, before)
    return lines
