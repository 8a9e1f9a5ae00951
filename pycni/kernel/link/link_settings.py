"""The keywords of Link.set, Link.ensure and Link.expect, for type checkers."""

from typing import TypedDict


class LinkChanges(TypedDict, total=False):
    """Properties of a link that Link.set and Link.ensure change. None leaves a property as it is."""

    mtu: int | None  # bytes
    mac: str | None
    up: bool | None
    promisc: bool | None
    allmulti: bool | None
    txqlen: int | None  # packets
    alias: str | None


class LinkSettings(LinkChanges, total=False):
    """Properties of a link that Link.expect compares: fields of LinkState, which describes them.

    `mode`, `broadcast_queue` and `vlan` can also be set when a link is created.
    """

    name: str
    kind: str
    master: int | None
    operstate: str
    peer: int | None
    vlan_filtering: bool | None
    hairpin: bool | None
    isolated: bool | None
    mode: str | None
    broadcast_queue: int | None
    vlan: int | None
    table: int | None
    user: int | None
    group: int | None
    multi_queue: bool | None
