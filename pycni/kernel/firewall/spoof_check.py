"""MAC spoof check: a bridge port may send only from its container's MAC address. There is only the nftables backend."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.firewall.nftables import nft
from pycni.kernel.firewall.nftables import spoof_check as nftables

if TYPE_CHECKING:
    from pycni.kernel.link.link import Link
    from pycni.kernel.netns.handle import NetnsHandle
    from pycni.kernel.owner import Owner, Stale


class SpoofCheckRules:
    """MAC spoof checks in a network namespace."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def probe(self) -> None:
        """Raise CniError, code 50, unless nftables works."""
        nft.probe(self._netns)

    def create(self, port: Link, mac: str, owner: Owner) -> None:
        """Drop what the bridge port sends from any MAC address but `mac`."""
        nftables.create(self._netns, port.name, mac, owner)

    def expect(self, port: Link, mac: str, owner: Owner) -> None:
        """Raise CniError unless the bridge port may send only from `mac`. A spoof check of the Go plugin counts."""
        nftables.expect(self._netns, port.name, mac, owner)

    def delete(self, owner: Owner | Stale) -> None:
        """Remove the spoof check of the owner's port. A failure is raised at the end of the call."""
        self._netns.journal.attempt("delete spoof check", partial(nftables.delete, self._netns, owner))
