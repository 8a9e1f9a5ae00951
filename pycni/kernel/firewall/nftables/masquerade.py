"""Masquerading by nftables: one set element per address, and two static rules per prefix length.

set masquerade4-24 { 10.1.0.2 . 10.1.0.0 }    an address and its subnet; one set for all subnets of a prefix length

Packets to the own subnet and to multicast are not masqueraded. The sets are not verdict maps, because the kernel
validates every element of a verdict map each time that one is added.
"""

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_network

from pycni.kernel.firewall.families import FAMILY_NAMES, MULTICAST, UNSPECIFIED
from pycni.kernel.firewall.nftables.elements import TABLE, Element, ElementTable
from pycni.kernel.firewall.nftables.go_chain import GoChain
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.protocols import MasqueradeBackend
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError


def _rules(set_name: str) -> tuple[str, ...]:
    """Return the rules that look into the set, whose name tells IP version and prefix length."""
    version, length = map(int, set_name.removeprefix("masquerade").split("-"))
    word, mask = FAMILY_NAMES[version], ip_network(f"{UNSPECIFIED[version]}/{length}").netmask
    return (
        f"{word} saddr . {word} daddr & {mask} @{set_name} return",
        f"{word} saddr . {word} saddr & {mask} @{set_name} {word} daddr != {MULTICAST[version]} masquerade",
    )


def _set_script(set_name: str) -> str:
    address = f"ipv{set_name.removeprefix('masquerade')[0]}_addr"
    rules = "".join(f"add rule {TABLE} postrouting {rule}\n" for rule in _rules(set_name))
    return f"create set {TABLE} {set_name} {{ type {address} . {address}; }}\n{rules}"


_TABLE = ElementTable(
    TABLE,
    f"""
table {TABLE} {{
    chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
}}
""",
    ("masquerade4-", "masquerade6-"),
    set_script=_set_script,
)
_GO_CHAIN = GoChain("inet cni_plugins_masquerade", "masq_checks")  # its comments begin with Owner.key, as labels do


class NftablesMasquerade(MasqueradeBackend):
    """Masquerading by set elements."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        addresses = ", ".join(str(cidr.ip) for cidr in cidrs)
        _TABLE.create(self._netns, _elements(cidrs), owner, what=f"masquerade {addresses}")

    def expect(self, cidrs: Sequence[Cidr], owner: Owner) -> None:
        elements = _elements(cidrs)
        try:
            _TABLE.expect(self._netns, elements, owner, what="masquerading")
            self._expect_rules({element.set_name for element in elements})
        except CniError:
            if not {str(cidr.ip) for cidr in cidrs} <= self._masqueraded_by_go(owner):
                raise

    def delete(
        self,
        owner: Owner | Stale,
        cidrs: Sequence[Cidr] | None = None,
        *,
        kept: Collection[Cidr] = (),  # noqa: ARG002 - elements carry the label of one interface
    ) -> None:
        _TABLE.delete(self._netns, owner, None if cidrs is None else _elements(cidrs))
        _GO_CHAIN.delete(self._netns, owner.owns)

    def _masqueraded_by_go(self, owner: Owner) -> set[str]:
        """Return the source addresses in the rules that a Go plugin created for the owner."""
        rules = _GO_CHAIN.rules(self._netns, owner.owns)
        matches = [part.get("match", {}) for rule in rules for part in rule["expr"]]
        return {match["right"] for match in matches if match.get("left", {}).get("payload", {}).get("field") == "saddr"}

    def _expect_rules(self, set_names: Iterable[str]) -> None:
        """Raise CniError if the chain has fewer rules than these sets need."""
        wanted = [rule for name in set_names for rule in _rules(name)]
        (count,) = lookup(self._netns).use_counts("inet", "pycni", ["postrouting"])  # no other chain jumps to it
        if count < len(wanted):
            raise CniError(
                f"masquerading is missing: chain postrouting of nftables table {TABLE} has {count} of its "
                f"{len(wanted)} rules",
                details=f"another program has changed the chain; the rules are: {'; '.join(wanted)}",
            )


def _elements(cidrs: Iterable[Cidr]) -> list[Element]:
    return [
        Element(f"masquerade{cidr.version}-{cidr.network.prefixlen}", f"{cidr.ip} . {cidr.network.network_address}")
        for cidr in cidrs
    ]
