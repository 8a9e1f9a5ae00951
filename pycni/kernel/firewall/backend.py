"""Which of nftables and iptables is meant where none is named."""

from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.nftables import nft

NFTABLES, IPTABLES = "nftables", "iptables"


def chosen(backend: str = "") -> str:
    """The backend of that name; without one nftables, unless this machine has iptables alone."""
    if backend:
        return backend
    return IPTABLES if not nft.is_installed() and restore.is_installed() else NFTABLES
