"""MAC spoof check by nftables: drops what a bridge port sends from a MAC address other than its container's."""

from pycni.kernel.firewall.nftables import go_spoof_check
from pycni.kernel.firewall.nftables.elements import BRIDGE_TABLE, Element, ElementTable
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_TABLE = ElementTable(
    BRIDGE_TABLE,
    f"""
table {BRIDGE_TABLE} {{
    set guarded {{ type ifname; }}
    set allowed {{ type ifname . ether_addr; }}
    chain spoofcheck {{ type filter hook prerouting priority dstnat; policy accept; }}
}}
flush chain {BRIDGE_TABLE} spoofcheck
add rule {BRIDGE_TABLE} spoofcheck iifname @guarded iifname . ether saddr != @allowed drop
""",
    ("guarded", "allowed"),
)


def create(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> None:
    """Drop what the bridge port sends from any MAC address but `mac`."""
    _TABLE.create(netns, _elements(port, mac), owner, what=f"restrict {port} to source MAC address {mac}")


def expect(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> None:
    """Raise CniError unless the bridge port may send only from `mac`. A spoof check of the Go plugin counts."""
    try:
        _TABLE.expect(netns, _elements(port, mac), owner, what="spoof check")
    except CniError:
        if not go_spoof_check.holds(netns, port, mac, owner):
            raise


def delete(netns: NetnsHandle, owner: Owner | Stale) -> None:
    """Remove the spoof check of the owner's port, whether pycni or the Go plugin created it."""
    _TABLE.delete(netns, owner)
    go_spoof_check.delete(netns, owner)


def _elements(port: str, mac: str) -> list[Element]:
    return [Element("allowed", f'"{port}" . {mac}'), Element("guarded", f'"{port}"')]
