"""Encoding and decoding of the frequent rtnetlink messages, a hundred times faster than pyroute2.

The codec supports messages about links, addresses, routes and neighbours, with the attributes that the hot path needs.
Attributes have the same names as in pyroute2, and are decoded when they are used. pyroute2 handles everything else. A
test compares both byte by byte.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from pycni.kernel.netlink import messages

Attributes = Sequence[tuple[str, Any]]
_Coder = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]

_ATTRIBUTE = struct.Struct("=HH")
_HEADER = struct.Struct("=IHHII")
_STATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")


def _pack_address(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _address(data: bytes) -> str:
    if len(data) == 4:
        return inet_ntop(AF_INET, data)
    text = inet_ntop(AF_INET6, data)
    return text if "." not in text else str(ip_address(data))  # the C library formats ::102:304 as ::1.2.3.4


def _number(layout: str) -> _Coder:
    packer = struct.Struct(layout)
    return packer.pack, lambda data: packer.unpack(data)[0]


U8, U16, U32 = _number("=B"), _number("=H"), _number("=I")
TEXT: _Coder = (lambda text: text.encode() + b"\0", lambda data: data.rstrip(b"\0").decode())
MAC: _Coder = (lambda text: bytes.fromhex(text.replace(":", "")), lambda data: data.hex(":"))
IP: _Coder = (_pack_address, _address)
STATE: _Coder = (lambda name: bytes([_STATES.index(name)]), lambda data: _STATES[data[0]])

Table = Mapping[str, tuple[int, "_Coder | Table"]]

# Attributes of one kind of link. Other kinds use the same numbers for other attributes.
_DATA: Table = {
    "IFLA_BR_VLAN_FILTERING": (7, U8),
    "IFLA_IPVLAN_MODE": (1, U16),
    "IFLA_MACVLAN_BC_QUEUE_LEN": (7, U32),
    "IFLA_MACVLAN_MODE": (1, U32),
    "IFLA_TUN_GROUP": (2, U32),
    "IFLA_TUN_MULTI_QUEUE": (7, U8),
    "IFLA_TUN_OWNER": (1, U32),
    "IFLA_VLAN_ID": (1, U16),
    "IFLA_VRF_TABLE": (1, U32),
}
_PORT: Table = {
    "IFLA_BRPORT_STATE": (1, U8),
    "IFLA_BRPORT_MODE": (4, U8),
    "IFLA_BRPORT_ISOLATED": (33, U8),
}
_INFO: Table = {
    "IFLA_INFO_KIND": (1, TEXT),
    "IFLA_INFO_DATA": (2, _DATA),
    "IFLA_INFO_SLAVE_KIND": (4, TEXT),
    "IFLA_INFO_SLAVE_DATA": (5, _PORT),
}
_LINK: Table = {
    "IFLA_ADDRESS": (1, MAC),
    "IFLA_IFNAME": (3, TEXT),
    "IFLA_MTU": (4, U32),
    "IFLA_LINK": (5, U32),
    "IFLA_MASTER": (10, U32),
    "IFLA_TXQLEN": (13, U32),
    "IFLA_OPERSTATE": (16, STATE),
    "IFLA_LINKINFO": (18, _INFO),
    "IFLA_IFALIAS": (20, TEXT),
    "IFLA_NET_NS_FD": (28, U32),
    "IFLA_EXT_MASK": (29, U32),
    "IFLA_LINK_NETNSID": (37, U32),
}
# Attributes for requests. IPv4 sysctls have a number each in requests; in answers they are one array (see pyroute2).
_LINK_REQUEST: Table = {
    **_LINK,
    "IFLA_AF_SPEC": (26, {"AF_INET": (2, {"IFLA_INET_CONF": (1, {"IPV4_DEVCONF_ARP_NOTIFY": (22, U32)})})}),
}
_ADDRESS: Table = {
    "IFA_ADDRESS": (1, IP),
    "IFA_LOCAL": (2, IP),
    "IFA_BROADCAST": (4, IP),
    "IFA_FLAGS": (8, U32),
}
_METRICS: Table = {"RTAX_MTU": (2, U32), "RTAX_ADVMSS": (8, U32)}
_ROUTE: Table = {
    "RTA_DST": (1, IP),
    "RTA_OIF": (4, U32),
    "RTA_GATEWAY": (5, IP),
    "RTA_PRIORITY": (6, U32),
    "RTA_PREFSRC": (7, IP),
    "RTA_METRICS": (8, _METRICS),
    "RTA_TABLE": (15, U32),
}
_NEIGHBOUR: Table = {"NDA_DST": (1, IP), "NDA_LLADDR": (2, MAC)}
# Rare attributes of routes, whose presence the code must check.
_CHECKED_FOR_PRESENCE = {"RTA_MULTIPATH": 9, "RTA_VIA": 18, "RTA_ENCAP": 22}
# By message type: the layout of the fixed header, the names of its fields, and the attributes.
_FAMILIES = {
    16: (struct.Struct("=BxHiII"), ("family", "ifi_type", "index", "flags", "change"), _LINK),
    20: (struct.Struct("=BBBBI"), ("family", "prefixlen", "flags", "scope", "index"), _ADDRESS),
    56: (struct.Struct("=BBBBI"), ("family", "prefixlen", "flags", "scope", "index"), {"IFA_MULTICAST": (7, IP)}),
    24: (
        struct.Struct("=BBBBBBBBI"),
        ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"),
        _ROUTE,
    ),
    28: (struct.Struct("=BxxxiHBB"), ("family", "ifindex", "state", "flags", "ndm_type"), _NEIGHBOUR),
}


def encode(kind: int, flags: int, sequence: int, fields: Mapping[str, int], attributes: Attributes) -> bytes | None:
    """Return the bytes of a message, or None if only pyroute2 supports it."""
    layout, names, table = _FAMILIES.get(kind & ~3, (None, (), {}))
    if layout is None or not fields.keys() <= set(names):
        return None
    if table is _LINK:
        table = _LINK_REQUEST
    try:
        fixed = layout.pack(*[fields.get(name, 0) for name in names])
        body = fixed + _encode_attributes(table, attributes)
    except KeyError:
        return None
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _encode_attributes(table: Table, attributes: Attributes) -> bytes:
    parts = []
    for name, value in attributes:
        number, coder = table[name]
        if isinstance(coder, tuple):
            data = coder[0](value)
        elif name == "IFLA_INFO_DATA" and "VETH_INFO_PEER" in dict(value["attrs"]):
            data = _encode_peer(dict(value["attrs"])["VETH_INFO_PEER"])
        else:
            data = _encode_attributes(coder, value["attrs"])
        parts.append(_ATTRIBUTE.pack(len(data) + 4, number) + data + bytes(-len(data) % 4))
    return b"".join(parts)


def _encode_peer(peer: Mapping[str, Any]) -> bytes:
    """Encode VETH_INFO_PEER, an attribute that contains a link message."""
    layout, names, table = _FAMILIES[16]
    data = layout.pack(*[peer.get(name, 0) for name in names]) + _encode_attributes(table, peer["attrs"])
    return _ATTRIBUTE.pack(len(data) + 4, 1) + data


def read(kind: int, data: bytes) -> Any:
    """Return a reader for a message from the kernel."""
    return Reader(kind, data) if kind & ~3 in _FAMILIES else _in_full(kind, data)


def _in_full(kind: int, data: bytes) -> Any:
    message = messages.message_class(kind)(data)
    message.decode()
    return message


class Reader:
    """A message from the kernel, decoded lazily, with the interface of pyroute2's messages."""

    __slots__ = ("_attributes", "_data", "_fields", "_full", "_kind", "_levels", "_table")

    def __init__(self, kind: int, data: bytes) -> None:
        layout, names, self._table = _FAMILIES[kind & ~3]
        self._kind, self._data = kind, data
        self._fields = dict(zip(names, layout.unpack_from(data, _HEADER.size), strict=True))
        self._attributes = _split(data, _HEADER.size + layout.size, len(data))
        self._levels: dict[tuple[str, ...], tuple[Table, Mapping[int, tuple[int, int]]]] = {}
        self._full: Any = None

    def __getitem__(self, field: str) -> int:
        """Return a field of the fixed header."""
        return int(self._fields[field])

    def get_attr(self, name: str) -> Any:
        """Return the value of an attribute, or None if the message does not have it."""
        if name not in self._table:
            return self.in_full().get_attr(name)
        return _decode(self._data, self._table, self._attributes, name)

    def has(self, name: str) -> bool:
        """Return whether a route has one of the rare attributes, without decoding the message with pyroute2."""
        return _CHECKED_FOR_PRESENCE[name] in self._attributes

    def get_nested(self, *names: str) -> Any:
        """Return the value of a nested attribute, given as a path of names; None if the message does not have it."""
        *path, last = names
        table, attributes = self._level(tuple(path))
        return _decode(self._data, table, attributes, last)

    def _level(self, path: tuple[str, ...]) -> tuple[Table, Mapping[int, tuple[int, int]]]:
        """Return the table and the positions of the attributes nested in the one at `path`."""
        if not path:
            return self._table, self._attributes
        if path not in self._levels:
            table, attributes = self._level(path[:-1])
            number, nested = table[path[-1]]
            assert not isinstance(nested, tuple), f"{path[-1]} has no nested attributes: use get_attr"
            start, end = attributes.get(number, (0, 0))
            self._levels[path] = nested, _split(self._data, start, end)
        return self._levels[path]

    def in_full(self) -> Any:
        """Return the message as decoded by pyroute2, with all attributes."""
        if self._full is None:  # kept: pyroute2's nested attributes refer to the whole message
            self._full = _in_full(self._kind, self._data)
        return self._full


def _split(data: bytes, offset: int, end: int) -> dict[int, tuple[int, int]]:
    """Return the start and end offset of the value of each attribute, by attribute number."""
    found, header = {}, _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, number = header(data, offset)
        if length < 4:
            break
        found[number & 0x3FFF] = (offset + 4, offset + length)
        offset += (length + 3) & ~3
    return found


def _decode(data: bytes, table: Table, attributes: Mapping[int, tuple[int, int]], name: str) -> Any:
    number, coder = table[name]
    if number not in attributes:
        return None
    start, end = attributes[number]
    assert isinstance(coder, tuple), f"{name} has nested attributes: use get_nested"
    return coder[1](data[start:end])
