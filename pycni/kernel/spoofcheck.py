"""The MAC spoof check by nftables: a guarded bridge port may send from its container's address alone."""

from pycni.kernel.elements import Element, Table

TABLE = Table(
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


def elements(port: str, mac: str) -> list[Element]:
    """The elements that guard the port."""
    return [Element("allowed", f'"{port}" . {mac}'), Element("guarded", f'"{port}"')]
