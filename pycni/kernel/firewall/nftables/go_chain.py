"""Rules that the Go plugins created in nftables chains: found by their comments, deleted by their handles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import Nft, NftError, NftUnavailableError, opened
from pycni.kernel.netns.handle import NetnsHandle

_ATTEMPTS = 5  # to delete rules while a Go plugin changes the same chain


@dataclass(frozen=True)
class GoChain:
    """A chain in a table of the Go plugins, such as "inet cni_plugins_masquerade", "masq_checks"."""

    table: str
    name: str

    def rules(self, netns: NetnsHandle, owns: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Return the rules whose comment satisfies `owns`, in nft's JSON; an empty list if the chain does not exist."""
        if not self._exists(netns):
            return []
        try:
            return self._rules(opened(netns), owns)
        except NftUnavailableError:
            return []

    def delete(self, netns: NetnsHandle, owns: Callable[[str], bool]) -> None:
        """Delete the rules whose comment satisfies `owns`. Table and chain stay, as after a DEL of the Go plugins."""
        if not self._exists(netns):
            return
        try:
            nft = opened(netns)
            for attempt in range(1, _ATTEMPTS + 1):
                if self._try_delete(nft, owns, is_last=attempt == _ATTEMPTS):
                    return
        except NftUnavailableError:
            return

    def _exists(self, netns: NetnsHandle) -> bool:
        family, _, table = self.table.partition(" ")
        return lookup(netns).has_chain(family, table, self.name)

    def _try_delete(self, nft: Nft, owns: Callable[[str], bool], *, is_last: bool) -> bool:
        """Return False if another process deleted one of the rules meanwhile. Raises NftError."""
        handles = [rule["handle"] for rule in self._rules(nft, owns)]
        try:
            if handles:
                nft.run("\n".join(f"delete rule {self.table} {self.name} handle {handle}" for handle in handles))
        except NftError as error:
            if is_last or not error.missing:
                raise
            return False
        return True

    def _rules(self, nft: Nft, owns: Callable[[str], bool]) -> list[dict[str, Any]]:
        try:
            objects = nft.listing(f"list chain {self.table} {self.name}")
        except NftError as error:
            if error.missing:
                return []
            raise
        return [item["rule"] for item in objects if "rule" in item and owns(item["rule"].get("comment", ""))]
