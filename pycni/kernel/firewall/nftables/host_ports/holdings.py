"""The elements and rules that an attachment, or all stale attachments of a network, have in the table."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pycni.kernel.firewall.nftables.elements import TABLE, Element
from pycni.kernel.firewall.nftables.host_ports.plan import attachment_key, secondary
from pycni.kernel.firewall.nftables.host_ports.table import HOST_PORTS
from pycni.kernel.firewall.nftables.lookup import Lookup
from pycni.kernel.firewall.nftables.nft import opened
from pycni.kernel.firewall.nftables.transaction import Change, ElementChange
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale

_COUNTS = re.compile(r"(\d+) elements \+ (\d+) rules")  # in the comment of the attachment's own element


@dataclass(frozen=True)
class Holdings:
    """Elements, and handles of rules with conditions."""

    elements: Sequence[Element] = ()
    rules: Sequence[int] = ()

    def removals(self) -> list[Change | str]:
        """Return the changes that delete them."""
        return [
            *(ElementChange("delete", TABLE, element.set_name, element.key) for element in self.elements),
            *(f"delete rule {TABLE} hostport-conditions handle {handle}" for handle in self.rules),
        ]


def read(netns: NetnsHandle, kernel: Lookup, owner: Owner | Stale, expected: Iterable[Element]) -> Holdings:
    """Return what the owner has.

    The elements in `expected` are looked up by key. The table is listed only if there are others, or for `Stale`.
    """
    if isinstance(owner, Stale):
        return _list(netns, owner)
    comment = find_comment(kernel, owner)
    if comment is None:
        return Holdings()
    counts = _COUNTS.search(comment)
    elements = [Element(*attachment_key(owner)), *_find_own(kernel, owner, expected)]
    if counts is None or int(counts[1]) != len(elements) - 1:
        return _list(netns, owner)
    return Holdings(elements, _rule_handles(netns, owner) if int(counts[2]) else ())


def find_comment(kernel: Lookup, owner: Owner) -> str | None:
    """Return the comment of the attachment's own element; None if the attachment has no host ports."""
    found = kernel.element(TABLE, *attachment_key(owner))
    return found.comment if found is not None and owner.owns(found.comment) else None


def _find_own(kernel: Lookup, owner: Owner, expected: Iterable[Element]) -> Iterator[Element]:
    for element in expected:
        for name in (element.set_name, secondary(element.set_name)):
            found = kernel.element(TABLE, name, element.key)
            if found is not None and owner.owns(found.comment):
                yield replace(element, set_name=name)


def _list(netns: NetnsHandle, owner: Owner | Stale) -> Holdings:
    elements = [element for element, label in HOST_PORTS.find_all(netns) if owner.owns(label)]
    return Holdings(elements, _rule_handles(netns, owner))


def _rule_handles(netns: NetnsHandle, owner: Owner | Stale) -> list[int]:
    listing = opened(netns).listing(f"list chain {TABLE} hostport-conditions")
    rules = [item["rule"] for item in listing if "rule" in item]
    return [rule["handle"] for rule in rules if owner.owns(rule.get("comment", ""))]
