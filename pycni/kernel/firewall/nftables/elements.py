"""Set and map elements of nftables, labelled with their owner: what an attachment has in the firewall.

The rules are static and shared. An attachment adds elements and removes them again, in one transaction whose cost
does not grow with the number of attachments.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pycni.kernel.firewall.nftables import transaction
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import NftError, NftUnavailableError, opened
from pycni.kernel.firewall.nftables.transaction import ElementChange
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError


@dataclass(frozen=True)
class Element:
    """One element: the set or map it is in, its key, in a map its value, and the rules that the value needs."""

    place: str
    key: str
    value: str = ""
    rules: str = ""

    @property
    def chain(self) -> str:
        """The chain that its value leads to; empty if it leads to none."""
        return self.value.removeprefix("goto ")


def _nothing_else(_element: Element) -> str:
    return ""


def _nowhere_else(_place: str) -> str:
    return ""


@dataclass(frozen=True)
class Table:
    """A table of ours: its family and name, the script that makes it, and how the names of its sets and maps begin.

    What only some elements need is made by the script `for_place` when the first of them comes; unlike the table's own
    it creates, so that it fails where somebody else was first. A chain goes with the last element that leads to it, and
    with it what the script `with_chain` removes: either both are there or neither, whatever happens at the same time.
    """

    name: str
    script: str
    places: tuple[str, ...]
    for_place: Callable[[str], str] = _nowhere_else
    with_chain: Callable[[Element], str] = _nothing_else

    def create(self, netns: NetnsHandle, elements: Sequence[Element], owner: Owner, *, what: str) -> None:
        """Add the owner's elements; they are taken out again if the call fails."""
        netns.journal.change(
            what, lambda: self._add(netns, elements, owner), lambda: self.delete(netns, owner, elements)
        )

    def expect(self, netns: NetnsHandle, elements: Iterable[Element], owner: Owner, *, what: str) -> None:
        """Raise CniError unless every element is there and the owner's."""
        for element in elements:
            name = element.key.partition(" . ")[0]
            place = f"nftables table {self.name}, {element.place}"
            found = self.found(netns, [element])
            label = found[0][1] if found else "nobody"
            if not owner.owns(label):
                raise CniError(f"{what} of {name} is missing in {place} (held by {label})")
            if found[0][0].value != element.value:
                raise CniError(f'{what} of {name} is "{found[0][0].value}" in {place}, not "{element.value}"')

    def delete(self, netns: NetnsHandle, owner: Owner | Stale, elements: Iterable[Element] | None = None) -> None:
        """Remove what the owner has: of `elements` if they are known, else of all that there is."""
        try:
            held = self.held(netns) if elements is None else self.found(netns, elements)
            doomed = [element for element, label in held if owner.owns(label)]
            if doomed:
                transaction.apply(netns, [ElementChange("delete", self.name, e.place, e.key) for e in doomed])
                self._delete_unused_chains(netns, {e.chain: self.with_chain(e) for e in doomed if e.chain})
        except NftUnavailableError:
            return  # then there is nothing of ours either
        except NftError as error:
            if not error.missing:
                raise

    def _delete_unused_chains(self, netns: NetnsHandle, chains: Mapping[str, str]) -> None:
        """Remove these chains, each with what its script removes, unless elements lead there."""
        for chain, script in sorted(chains.items()):
            try:
                opened(netns).run(f"{script}flush chain {self.name} {chain}\ndelete chain {self.name} {chain}")
            except NftError as error:
                if not error.busy and not error.missing:
                    raise

    def _add(self, netns: NetnsHandle, elements: Sequence[Element], owner: Owner) -> None:
        additions = [
            ElementChange("create", self.name, e.place, e.key, comment=owner.label, value=e.value) for e in elements
        ]
        try:
            transaction.apply(netns, additions)
        except NftError as error:
            if not error.missing and not error.exists:
                raise
            if error.missing:
                self._make_places(netns, elements)
            rules = "".join({element.rules for element in elements})
            leftovers = [element for element, _ in self.found(netns, elements)]
            self._add_over(netns, leftovers, self.script + rules + "\n".join(map(str, additions)))

    def _make_places(self, netns: NetnsHandle, elements: Iterable[Element]) -> None:
        for script in filter(None, {self.for_place(element.place) for element in elements}):
            try:
                opened(netns).run(self.script + script)
            except NftError as error:
                if not error.exists:
                    raise

    def _add_over(self, netns: NetnsHandle, leftovers: Sequence[Element], script: str) -> None:
        """Run the script in place of elements that somebody left behind: the keys are ours now, IPAM says so."""
        removals = "".join(f"{ElementChange('delete', self.name, e.place, e.key)}\n" for e in leftovers)
        opened(netns).run(removals + script)
        self._delete_unused_chains(netns, {e.chain: self.with_chain(e) for e in leftovers if e.chain})

    def found(self, netns: NetnsHandle, elements: Iterable[Element]) -> list[tuple[Element, str]]:
        """Those of the elements that are there, with the value and the label that they have there."""
        wanted = list(elements)
        kernel = lookup(netns)
        kernel.look_ahead(self.name, [(element.place, element.key) for element in wanted])
        answers = [(element, kernel.element(self.name, element.place, element.key)) for element in wanted]
        return [
            (replace(element, value=f"goto {there.chain}" if there.chain else ""), there.comment)
            for element, there in answers
            if there is not None
        ]

    def held(self, netns: NetnsHandle) -> list[tuple[Element, str]]:
        """Every element that has a label, with it: all are read."""
        family, _, table = self.name.partition(" ")
        if not lookup(netns).tables([family], table):
            return []
        return _labelled_in(opened(netns).listing(f"list table {family} {table}"), self.places)


def _labelled_in(listing: Iterable[dict[str, Any]], places: tuple[str, ...]) -> list[tuple[Element, str]]:
    found = []
    for item in listing:
        place = item.get("set") or item.get("map") or {}
        if place.get("name", "").startswith(places):
            found += [_labelled(place["name"], place["type"], entry) for entry in place.get("elem", [])]
    return [pair for pair in found if pair[1]]


def _labelled(place: str, kind: str | list[str], entry: Any) -> tuple[Element, str]:
    """An element and its comment, from nft's JSON: a value, {"elem": {...}}, or in a map a pair of key and verdict."""
    key, verdict = entry if isinstance(entry, list) else (entry, {})
    if not isinstance(key, dict) or "elem" not in key:
        return Element(place, str(key)), ""
    value = key["elem"]["val"]
    parts = value["concat"] if isinstance(value, dict) else [value]
    kinds = [kind] if isinstance(kind, str) else kind
    words = [f'"{part}"' if of == "ifname" else str(part) for part, of in zip(parts, kinds, strict=True)]
    target = verdict.get("goto", {}).get("target", "") if isinstance(verdict, dict) else ""
    element = Element(place, " . ".join(words), f"goto {target}" if target else "")
    return element, key["elem"].get("comment", "")
