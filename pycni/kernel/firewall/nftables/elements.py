"""Elements of nftables sets and maps, labelled with their owner.

The rules are static and shared by all attachments. An attachment is a number of elements. To add or to remove them
takes one transaction, whose cost does not grow with the number of attachments.
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

TABLE, BRIDGE_TABLE = "inet pycni", "bridge pycni"  # family and name of pycni's tables


@dataclass(frozen=True)
class Element:
    """An element of a set or map.

    set_name: the set or map.
    key, value: as nft writes them; `value` is empty in a set.
    chain_script: nft commands that create the chain that `value` goes to.
    """

    set_name: str
    key: str
    value: str = ""
    chain_script: str = ""

    @property
    def chain(self) -> str:
        """The chain that `value` goes to, or an empty string."""
        return self.value.removeprefix("goto ")


def _no_cleanup(_element: Element) -> str:
    return ""


def _no_script(_set_name: str) -> str:
    return ""


@dataclass(frozen=True)
class ElementTable:
    """A table of pycni, as far as one concern uses it.

    name: family and name, such as "inet pycni".
    script: nft commands that create the table with its sets and rules; they can be repeated.
    set_prefixes: how the names of the concern's sets and maps begin.
    set_script: returns the nft commands that create a set on first use. They fail if another process has created it.
    chain_cleanup: returns nft commands that run in the transaction that deletes the chain of an element. A chain is
        deleted with the last element that refers to it, so the objects of both scripts exist together or not at all.
    """

    name: str
    script: str
    set_prefixes: tuple[str, ...]
    set_script: Callable[[str], str] = _no_script
    chain_cleanup: Callable[[Element], str] = _no_cleanup

    def create(self, netns: NetnsHandle, elements: Sequence[Element], owner: Owner, *, what: str) -> None:
        """Add the owner's elements through the journal; `what` names the change. Raises NftError."""
        stale = netns.journal.change(
            what, lambda: self._add(netns, elements, owner), lambda: self.delete(netns, owner, elements), atomic=True
        )
        self._delete_unused_chains(netns, stale)

    def expect(self, netns: NetnsHandle, elements: Iterable[Element], owner: Owner, *, what: str) -> None:
        """Raise CniError unless every element exists with its value and belongs to the owner."""
        for element in elements:
            subject = f"{what} of {element.key.partition(' . ')[0]}"
            where = f"nftables table {self.name}, set {element.set_name}"
            found = self.find(netns, [element])
            if not found:
                raise CniError(f"{subject} is missing in {where}")
            actual, label = found[0]
            if not owner.owns(label):
                raise CniError(f'{subject} is missing in {where}: the element belongs to "{label}"')
            if actual.value != element.value:
                raise CniError(f'{subject} is "{actual.value}" in {where}, not "{element.value}"')

    def delete(self, netns: NetnsHandle, owner: Owner | Stale, elements: Iterable[Element] | None = None) -> None:
        """Remove the owner's elements: those among `elements`, or if it is None all in the table. Raises NftError."""
        try:
            existing = self.find_all(netns) if elements is None else self.find(netns, elements)
            own = [element for element, label in existing if owner.owns(label)]
            if own:
                transaction.apply(netns, [ElementChange("delete", self.name, e.set_name, e.key) for e in own])
                self._delete_unused_chains(netns, own)
        except NftUnavailableError:
            return  # without nftables there are no elements
        except NftError as error:
            if not error.missing:
                raise

    def find(self, netns: NetnsHandle, elements: Iterable[Element]) -> list[tuple[Element, str]]:
        """Return those of the elements that exist, each with its actual value and label, of any owner."""
        wanted = list(elements)
        kernel = lookup(netns)
        kernel.prefetch(self.name, [(element.set_name, element.key) for element in wanted])
        answers = [(element, kernel.element(self.name, element.set_name, element.key)) for element in wanted]
        return [
            (replace(element, value=f"goto {found.chain}" if found.chain else ""), found.comment)
            for element, found in answers
            if found is not None
        ]

    def find_all(self, netns: NetnsHandle) -> list[tuple[Element, str]]:
        """Return every labelled element of the concern, with its label. The whole table is listed."""
        family, _, table = self.name.partition(" ")
        if not lookup(netns).families_with_table([family], table):
            return []
        return _labelled_elements(opened(netns).listing(f"list table {family} {table}"), self.set_prefixes)

    def _add(self, netns: NetnsHandle, elements: Sequence[Element], owner: Owner) -> list[Element]:
        """Add all elements in one transaction, and return stale elements that it has replaced.

        First the elements are added blindly. Only if that fails, the table is created, and stale elements looked up.
        IPAM has assigned the addresses in their keys to the new owner.
        """
        additions = [
            ElementChange("create", self.name, e.set_name, e.key, comment=owner.label, value=e.value) for e in elements
        ]
        try:
            transaction.apply(netns, additions)
        except NftError as error:
            if not error.missing and not error.exists:
                raise
            if error.missing:
                self._create_sets(netns, elements)
            chains = "".join({element.chain_script for element in elements})
            stale = [element for element, _ in self.find(netns, elements)]
            removals = "".join(f"{ElementChange('delete', self.name, e.set_name, e.key)}\n" for e in stale)
            opened(netns).run(removals + self.script + chains + "\n".join(map(str, additions)))
            return stale
        return []

    def _create_sets(self, netns: NetnsHandle, elements: Iterable[Element]) -> None:
        for script in filter(None, {self.set_script(element.set_name) for element in elements}):
            try:
                opened(netns).run(self.script + script)
            except NftError as error:
                if not error.exists:
                    raise

    def _delete_unused_chains(self, netns: NetnsHandle, elements: Iterable[Element]) -> None:
        """Delete the chains of deleted elements, unless other elements refer to them."""
        scripts: Mapping[str, str] = {e.chain: self.chain_cleanup(e) for e in elements if e.chain}
        for chain, script in sorted(scripts.items()):
            try:
                opened(netns).run(f"{script}flush chain {self.name} {chain}\ndelete chain {self.name} {chain}")
            except NftError as error:
                if not error.busy and not error.missing:
                    raise


def _labelled_elements(listing: Iterable[dict[str, Any]], prefixes: tuple[str, ...]) -> list[tuple[Element, str]]:
    found = []
    for item in listing:
        set_or_map = item.get("set") or item.get("map") or {}
        if set_or_map.get("name", "").startswith(prefixes):
            entries = set_or_map.get("elem", [])
            found += [_parse_element(set_or_map["name"], set_or_map["type"], entry) for entry in entries]
    return [(element, label) for element, label in found if label]


def _parse_element(set_name: str, key_type: str | list[str], entry: Any) -> tuple[Element, str]:
    """Return an element and its comment from nft's JSON.

    An entry is a value or {"elem": {...}}; in a map it is a pair of that and a verdict.
    """
    key, verdict = entry if isinstance(entry, list) else (entry, {})
    if not isinstance(key, dict) or "elem" not in key:
        return Element(set_name, str(key)), ""
    value = key["elem"]["val"]
    parts = value["concat"] if isinstance(value, dict) else [value]
    types = [key_type] if isinstance(key_type, str) else key_type
    words = [f'"{part}"' if of == "ifname" else str(part) for part, of in zip(parts, types, strict=True)]
    target = verdict.get("goto", {}).get("target", "") if isinstance(verdict, dict) else ""
    element = Element(set_name, " . ".join(words), f"goto {target}" if target else "")
    return element, key["elem"].get("comment", "")
