"""Isolation by nftables: bridges between which nothing is forwarded, and bridges within which nothing is.

set fenced { "br0" }  set own { "br0" . "br0" }      between two different bridges that are fenced, all is dropped
set apart { "br0" . "br0" }                          and within this one too
map fences { "br0" . "veth3f9c" : goto fence-br0 }   who asked for it
map walls { "br0" . "veth3f9c" : goto wall-br0 }

No packet is ever looked up in the two maps. They count: nftables refuses to remove a chain to which an element still
leads, and what is in the sets goes in one transaction with the chain, so a bridge is fenced for as long as anybody
asks for it, without a lock. Several networks on a bridge may ask for different things; the strictest holds.
"""

import re
from collections.abc import Sequence

from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.firewall.nftables.forward import SCRIPT, TABLE, expect_rules
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_WORD = re.compile(r"[A-Za-z0-9_.-]+")  # of what nft takes as a name of a chain
_PREFIX = {"fences": "fence-", "walls": "wall-"}


def _members(element: Element) -> dict[str, str]:
    """What is in the sets for as long as an element like this is there: by set, the member."""
    bridge = element.key.partition(" . ")[0]
    within = f"{bridge} . {bridge}"
    return {"fenced": bridge, "own": within} if element.place == "fences" else {"apart": within}


def _additions(element: Element) -> str:
    return "".join(f"add element {TABLE} {place} {{ {key} }}\n" for place, key in _members(element).items())


def _removals(element: Element) -> str:
    # Added first, so that there is something to delete: nft before 1.0.7 knows no "destroy".
    deletions = (f"delete element {TABLE} {place} {{ {key} }}\n" for place, key in _members(element).items())
    return _additions(element) + "".join(deletions)


_TABLE = Table(TABLE, SCRIPT, tuple(_PREFIX), with_chain=_removals)


def create(netns: NetnsHandle, bridge: str, owner: Owner, *, strict: bool) -> None:
    """Keep the bridge apart from all others that are; with `strict` its ports from each other too."""
    _TABLE.create(netns, _elements(bridge, owner, strict=strict), owner, what=f"fence {bridge}")


def expect(netns: NetnsHandle, bridge: str, owner: Owner, *, strict: bool) -> None:
    """Raise CniError unless the bridge is kept apart."""
    elements = _elements(bridge, owner, strict=strict)
    _TABLE.expect(netns, elements, owner, what="the fence")
    expect_rules(netns)
    kernel = lookup(netns)
    for place, key in {pair for element in elements for pair in _members(element).items()}:
        if kernel.element(TABLE, place, key) is None:
            raise CniError(f"the fence of {bridge} has a hole: {key} is missing in set {place} of {TABLE}")


def delete(netns: NetnsHandle, owner: Owner | Stale, bridge: str = "") -> None:
    """Let go of the fence, which goes with the last who asks for it; of every one, unless `bridge` names it."""
    known = _elements(bridge, owner, strict=True) if bridge and isinstance(owner, Owner) else None
    _TABLE.delete(netns, owner, known)


def _elements(bridge: str, owner: Owner, *, strict: bool) -> Sequence[Element]:
    return [_element(place, bridge, owner) for place in (_PREFIX if strict else ["fences"])]


def _element(place: str, bridge: str, owner: Owner) -> Element:
    word = bridge if _WORD.fullmatch(bridge) else bridge.encode().hex()
    chain = f"{_PREFIX[place]}{word}"
    element = Element(place, f'"{bridge}" . "{owner.host_ifname}"', f"goto {chain}")
    return Element(place, element.key, element.value, f"\nadd chain {TABLE} {chain}\n{_additions(element)}")
