"""Isolation of bridge ports by nftables: what crosses the bridge itself, and so never sees the host's forwarding."""

from collections.abc import Iterable

from pycni.kernel.firewall.nftables.elements import Element, Table
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale

_TABLE = Table(
    "bridge pycni",
    """
table bridge pycni {
    set isolated { type ifname; }
    chain isolation { type filter hook forward priority filter; policy accept; }
}
flush chain bridge pycni isolation
add rule bridge pycni isolation iifname @isolated drop
add rule bridge pycni isolation oifname @isolated drop
""",
    ("isolated",),
)


def create(netns: NetnsHandle, ports: Iterable[str], owner: Owner) -> None:
    """Drop what goes from these ports to other ports, or comes from them."""
    elements = _elements(ports)
    _TABLE.create(netns, elements, owner, what=f"isolate {' '.join(element.key for element in elements)}")


def expect(netns: NetnsHandle, ports: Iterable[str], owner: Owner) -> None:
    """Raise CniError unless these ports are isolated."""
    _TABLE.expect(netns, _elements(ports), owner, what="isolation")


def delete(netns: NetnsHandle, owner: Owner | Stale, ports: Iterable[str] | None = None) -> None:
    """Isolate the owner's ports no more; which they are is looked up unless `ports` says it."""
    _TABLE.delete(netns, owner, None if ports is None else _elements(ports))


def _elements(ports: Iterable[str]) -> list[Element]:
    return [Element("isolated", f'"{port}"') for port in ports]
