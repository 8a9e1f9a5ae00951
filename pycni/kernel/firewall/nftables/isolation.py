"""Isolation of bridges by nftables: no packet is forwarded between two isolated bridges, nor within a strict one.

set fenced { "br0" }                                the isolated bridges: packets between two of them are dropped
set own { "br0" . "br0" }                           except that packets stay allowed within the same bridge
set apart { "br0" . "br0" }                         strict: packets within this bridge are dropped too
map fences { "br0" . "veth3f9c" : goto fence-br0 }  which attachments ask for isolation (`fences`)
map walls { "br0" . "veth3f9c" : goto wall-br0 }    and for strict isolation (`walls`)

No rule uses the two maps: they count references. nftables refuses to delete a chain while an element refers to it. The
members of the sets are removed in the transaction that deletes the chain. So a bridge is isolated for as long as any
attachment asks for it, without a lock. If the attachments of a bridge ask for different policies, the strictest
applies. The chain `fence` with the rules is in forward_rules.py.
"""

import re
from collections.abc import Sequence

from pycni.kernel.firewall.nftables.elements import TABLE, Element, ElementTable
from pycni.kernel.firewall.nftables.forward_rules import SCRIPT, expect_rules
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.protocols import IsolationBackend
from pycni.kernel.firewall.settings import BridgeIsolation
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_CHAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # what nft accepts unquoted
_CHAIN_PREFIXES = {"fences": "fence-", "walls": "wall-"}  # by map


def _members(element: Element) -> dict[str, str]:
    """Return the members that exist for as long as an element of this bridge and map does, by set."""
    bridge = element.key.partition(" . ")[0]
    within = f"{bridge} . {bridge}"
    return {"fenced": bridge, "own": within} if element.set_name == "fences" else {"apart": within}


def _addition(element: Element) -> str:
    return "".join(f"add element {TABLE} {name} {{ {key} }}\n" for name, key in _members(element).items())


def _removal(element: Element) -> str:
    # nft before 1.0.7 has no "destroy", so members are added first: then "delete" cannot fail.
    deletions = (f"delete element {TABLE} {name} {{ {key} }}\n" for name, key in _members(element).items())
    return _addition(element) + "".join(deletions)


_TABLE = ElementTable(TABLE, SCRIPT, tuple(_CHAIN_PREFIXES), chain_cleanup=_removal)


class NftablesIsolation(IsolationBackend):
    """Isolation of bridges by sets of their names."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, isolation: BridgeIsolation, owner: Owner) -> None:
        elements = _elements(isolation.bridge, owner, strict=isolation.strict)
        _TABLE.create(self._netns, elements, owner, what=f"isolate bridge {isolation.bridge}")

    def expect(self, isolation: BridgeIsolation, owner: Owner) -> None:
        elements = _elements(isolation.bridge, owner, strict=isolation.strict)
        _TABLE.expect(self._netns, elements, owner, what="isolation")
        expect_rules(self._netns)
        kernel = lookup(self._netns)
        for name, key in {member for element in elements for member in _members(element).items()}:
            if kernel.element(TABLE, name, key) is None:
                raise CniError(
                    f"isolation of {isolation.bridge} is missing in nftables table {TABLE}: "
                    f"set {name} has no element {key}"
                )

    def delete(self, owner: Owner | Stale, isolation: BridgeIsolation | None = None) -> None:
        elements = None
        if isolation and isinstance(owner, Owner):
            elements = _elements(isolation.bridge, owner, strict=True)
        _TABLE.delete(self._netns, owner, elements)


def _elements(bridge: str, owner: Owner, *, strict: bool) -> Sequence[Element]:
    return [_element(name, bridge, owner) for name in (_CHAIN_PREFIXES if strict else ["fences"])]


def _element(map_name: str, bridge: str, owner: Owner) -> Element:
    word = bridge if _CHAIN_NAME.fullmatch(bridge) else bridge.encode().hex()
    chain = f"{_CHAIN_PREFIXES[map_name]}{word}"
    element = Element(map_name, f'"{bridge}" . "{owner.host_ifname}"', f"goto {chain}")
    return Element(map_name, element.key, element.value, f"\nadd chain {TABLE} {chain}\n{_addition(element)}")
