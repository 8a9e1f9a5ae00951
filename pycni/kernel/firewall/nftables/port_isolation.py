"""Isolation of the ports of one bridge by nftables: drops packets that never reach the host's forwarding hooks."""

from collections.abc import Iterable

from pycni.kernel.firewall.nftables.elements import BRIDGE_TABLE, Element, ElementTable
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale

_TABLE = ElementTable(
    BRIDGE_TABLE,
    f"""
table {BRIDGE_TABLE} {{
    set isolated {{ type ifname; }}
    chain isolation {{ type filter hook forward priority filter; policy accept; }}
}}
flush chain {BRIDGE_TABLE} isolation
add rule {BRIDGE_TABLE} isolation iifname @isolated drop
add rule {BRIDGE_TABLE} isolation oifname @isolated drop
""",
    ("isolated",),
)


def create(netns: NetnsHandle, ports: Iterable[str], owner: Owner) -> None:
    """Drop packets that these bridge ports exchange with other ports of their bridge."""
    elements = _elements(ports)
    names = " ".join(element.key for element in elements)
    _TABLE.create(netns, elements, owner, what=f"isolate bridge ports {names}")


def expect(netns: NetnsHandle, ports: Iterable[str], owner: Owner) -> None:
    """Raise CniError unless these bridge ports are isolated."""
    _TABLE.expect(netns, _elements(ports), owner, what="isolation")


def delete(netns: NetnsHandle, owner: Owner | Stale, ports: Iterable[str] | None = None) -> None:
    """Stop isolating the owner's ports; if `ports` is None, the table is searched for them."""
    _TABLE.delete(netns, owner, None if ports is None else _elements(ports))


def _elements(ports: Iterable[str]) -> list[Element]:
    return [Element("isolated", f'"{port}"') for port in ports]
