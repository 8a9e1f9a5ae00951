"""What the Go plugins made in nftables: rules in chains of theirs, known by comment and removed by handle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import Nft, NftError, NftUnavailableError, opened
from pycni.kernel.netns.handle import NetnsHandle

_ATTEMPTS = 5  # of an edit that a Go plugin gets in the way of


@dataclass(frozen=True)
class GoChain:
    """A chain in a table of the Go plugins: "inet cni_plugins_masquerade", "masq_checks"."""

    table: str
    name: str

    def rules(self, netns: NetnsHandle, owns: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Its rules, in nft's JSON, whose comment is of the owner; none if there is no such chain."""
        if not self._is_there(netns):
            return []
        try:
            return self._rules(opened(netns), owns)
        except NftUnavailableError:
            return []

    def delete(self, netns: NetnsHandle, owns: Callable[[str], bool]) -> None:
        """Remove the rules whose comment is of the owner; table and chain stay, as the Go plugins leave them."""
        if not self._is_there(netns):
            return
        try:
            nft = opened(netns)
            for attempt in range(1, _ATTEMPTS + 1):
                if self._deleted(nft, owns, last=attempt == _ATTEMPTS):
                    return
        except NftUnavailableError:
            return  # then there is nothing of anybody's

    def _is_there(self, netns: NetnsHandle) -> bool:
        family, _, table = self.table.partition(" ")
        return lookup(netns).has_chain(family, table, self.name)

    def _deleted(self, nft: Nft, owns: Callable[[str], bool], *, last: bool) -> bool:
        handles = [rule["handle"] for rule in self._rules(nft, owns)]
        try:
            if handles:
                nft.run("\n".join(f"delete rule {self.table} {self.name} handle {handle}" for handle in handles))
        except NftError as error:
            if last or not error.missing:
                raise
            return False  # one of them has gone meanwhile
        return True

    def _rules(self, nft: Nft, owns: Callable[[str], bool]) -> list[dict[str, Any]]:
        try:
            objects = nft.listing(f"list chain {self.table} {self.name}")
        except NftError as error:
            if error.missing:
                return []
            raise
        return [item["rule"] for item in objects if "rule" in item and owns(item["rule"].get("comment", ""))]
