"""The MAC spoof check by nftables: a guarded bridge port may send from its container's address alone."""

from pycni.kernel.firewall.nftables import go_spoof_check
from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_TABLE = Table(
    "bridge pycni",
    """
table bridge pycni {
    set guarded { type ifname; }
    set allowed { type ifname . ether_addr; }
    chain spoofcheck { type filter hook prerouting priority dstnat; policy accept; }
}
flush chain bridge pycni spoofcheck
add rule bridge pycni spoofcheck iifname @guarded iifname . ether saddr != @allowed drop
""",
    ("guarded", "allowed"),
)


def create(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> None:
    """Drop what the bridge port sends from any other hardware address."""
    _TABLE.create(netns, _elements(port, mac), owner, what=f"let {port} send from {mac} alone")


def expect(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> None:
    """Raise CniError unless the bridge port is guarded, by us or by what a Go plugin made."""
    try:
        _TABLE.expect(netns, _elements(port, mac), owner, what="spoof check")
    except CniError:
        if not go_spoof_check.holds(netns, port, mac, owner):
            raise


def delete(netns: NetnsHandle, owner: Owner | Stale) -> None:
    """Guard the owner's port no more."""
    _TABLE.delete(netns, owner)
    go_spoof_check.delete(netns, owner)


def _elements(port: str, mac: str) -> list[Element]:
    return [Element("allowed", f'"{port}" . {mac}'), Element("guarded", f'"{port}"')]
