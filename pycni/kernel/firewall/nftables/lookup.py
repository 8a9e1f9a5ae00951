"""Lookup of single nftables objects by name or key, over netlink.

To answer such a question, libnftables reads whole tables, and reads them twice if the object is missing. The kernel
answers within 20 microseconds, however many objects there are.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from pycni.kernel.firewall.nfnetlink import (
    BODY,
    DUMP,
    NFTABLES,
    NfnetlinkSocket,
    Request,
    attribute,
    attributes,
    connected,
    text,
)
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import MAC

FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
COUNTER = (1).to_bytes(4, "big")  # type of an object

# Numbers of attributes, from linux/netfilter/nf_tables.h.
ELEMENT_KEY, ELEMENT_DATA, ELEMENT_USERDATA, ELEMENT_OBJECT = 1, 2, 6, 9
VALUE, VERDICT, VERDICT_CHAIN = 1, 2, 2
USERDATA_COMMENT = 0  # userdata is a sequence of: type (a byte), length (a byte), value
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_ELEMENT, _GET_OBJECT = 1, 4, 7, 13, 19
_TABLE_NAME, _CHAIN_TABLE, _CHAIN_NAME, _CHAIN_POLICY, _CHAIN_USE, _RULE_TABLE, _RULE_CHAIN = 1, 1, 3, 5, 6, 1, 2
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_USE = 1, 2, 3, 5
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_POLICIES = ("drop", "accept")
_IFNAME_LENGTH = 16
_CACHE_SIZE = 128

# The object or all of nftables is missing, or the name is longer than any object's.
_MISSING = frozenset({errno.ENOENT, errno.ERANGE, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})


class FoundElement(NamedTuple):
    """An element of a set or map in the kernel."""

    comment: str = ""
    data: bytes = b""
    object: str = ""  # in a map of objects: the name of the object
    chain: str = ""  # in a verdict map: the chain that the element goes to

    @property
    def address_and_port(self) -> str:
        """The value as nft writes it, in a map of addresses and ports."""
        address, port = self.data[:-4], self.data[-4:-2]
        return f"{ip_address(address)} . {int.from_bytes(port, 'big')}"


class Lookup:
    """Lookups in the nftables of one namespace. All methods raise OSError if the kernel refuses to answer."""

    def __init__(self, socket: NfnetlinkSocket) -> None:
        self._socket = socket
        self._prefetched: dict[tuple[str, str, str], FoundElement | None] = {}

    def families_with_table(self, families: Iterable[str], table: str) -> list[str]:
        """Return those of the families that have a table of this name."""
        wanted = list(families)
        answers = self._ask([_request(_GET_TABLE, family, text(_TABLE_NAME, table)) for family in wanted])
        return [family for family, answer in zip(wanted, answers, strict=True) if answer is not None]

    def families_with_chain(self, families: Iterable[str], table: str, chain: str) -> list[str]:
        """Return those of the families that have this chain in a table of this name."""
        wanted = list(families)
        answers = self._ask([_chain_request(family, table, chain) for family in wanted])
        return [family for family, answer in zip(wanted, answers, strict=True) if answer is not None]

    def has_chain(self, family: str, table: str, chain: str) -> bool:
        """Return whether the chain exists."""
        return bool(self.families_with_chain([family], table, chain))

    def policies(self, families: Iterable[str], table: str, chain: str) -> dict[str, str]:
        """Return the policy of a base chain, "accept" or "drop", for each of the families that have the chain."""
        wanted = list(families)
        answers = self._ask([_chain_request(family, table, chain) for family in wanted])
        policies = [dict(attributes(answer[BODY:])).get(_CHAIN_POLICY) if answer else None for answer in answers]
        return {
            family: _POLICIES[int.from_bytes(policy, "big")]
            for family, policy in zip(wanted, policies, strict=True)
            if policy is not None
        }

    def use_counts(self, family: str, table: str, chains: Iterable[str]) -> list[int]:
        """Return the use count of each chain, 0 if it does not exist.

        The use count is the number of its rules, plus the number of rules and elements that refer to the chain.
        """
        answers = self._ask([_chain_request(family, table, chain) for chain in chains])
        return [int.from_bytes(dict(attributes(a[BODY:])).get(_CHAIN_USE, b""), "big") if a else 0 for a in answers]

    def counter_use_count(self, family: str, table: str, counter: str) -> int:
        """Return how many elements and rules refer to the counter; 0 if it does not exist."""
        where = text(_OBJECT_TABLE, table) + text(_OBJECT_NAME, counter) + attribute(_OBJECT_TYPE, COUNTER)
        (answer,) = self._ask([_request(_GET_OBJECT, family, where)])
        return int.from_bytes(dict(attributes(answer[BODY:])).get(_OBJECT_USE, b""), "big") if answer else 0

    def count_rules(self, family: str, table: str, chain: str) -> int:
        """Return the number of rules in the chain; 0 if it does not exist."""
        where = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
        return len(self._list(_GET_RULE, family, where))

    def element(self, table: str, set_name: str, key: str) -> FoundElement | None:
        """Return the element with this key in a set or map, or None. The answer may come from `prefetch`.

        table: family and name, such as "inet pycni".
        key: as nft writes it: addresses, MACs, protocols, ports and interface names joined by " . ", such as
            `"cni0" . 10.1.0.2 . tcp . 80`.
        """
        if (table, set_name, key) in self._prefetched:
            return self._prefetched[table, set_name, key]
        (found,) = self._get_elements(table, [(set_name, key)])
        return found

    def prefetch(self, table: str, sets_and_keys: Iterable[tuple[str, str]]) -> None:
        """Look up all these elements at once for later calls of `element`, and forget earlier answers."""
        wanted = list(dict.fromkeys(sets_and_keys))
        found = self._get_elements(table, wanted)
        self._prefetched = {(table, *where): element for where, element in zip(wanted, found, strict=True)}

    def elements_with_key_suffix(self, table: str, set_name: str, suffix: str) -> list[FoundElement]:
        """Return all elements whose keys end with these parts. Only the keys of the others are decoded."""
        wanted = encode_key(suffix)
        return [_parse_element(fields) for key, fields in self._list_elements(table, set_name) if key.endswith(wanted)]

    def elements(self, table: str, set_name: str) -> list[tuple[bytes, FoundElement]]:
        """Return all elements with their keys, which are as the kernel encodes them."""
        return [(key, _parse_element(fields)) for key, fields in self._list_elements(table, set_name)]

    def _get_elements(self, table: str, sets_and_keys: Iterable[tuple[str, str]]) -> list[FoundElement | None]:
        family, _, name = table.partition(" ")
        keys = [
            (where, attribute(ELEMENT_KEY, attribute(VALUE, encode_key(k)), nested=True)) for where, k in sets_and_keys
        ]
        answers = self._ask([_request(_GET_ELEMENT, family, element_list(name, where, key)) for where, key in keys])
        return [None if answer is None else _parse_element(_split_elements(answer)[0]) for answer in answers]

    def _list_elements(self, table: str, set_name: str) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        family, _, name = table.partition(" ")
        for answer in self._list(_GET_ELEMENT, family, _set_attributes(name, set_name)):
            for fields in _split_elements(answer):
                yield dict(attributes(fields[ELEMENT_KEY]))[VALUE], fields

    def _ask(self, requests: Sequence[Request]) -> list[bytes | None]:
        """Return the answer to each request; None if the object is missing."""
        answers = self._socket.ask_all(NFTABLES, requests) if requests else []
        for answer in answers:
            if isinstance(answer, int) and answer not in _MISSING:
                raise OSError(answer, os.strerror(answer).lower())
        return [None if isinstance(answer, int) else answer for answer in answers]

    def _list(self, command: int, family: str, body: bytes) -> list[bytes]:
        """Return the answers to a dump request; an empty list if the table, chain or set is missing."""
        try:
            return self._socket.ask(NFTABLES, command, FAMILIES[family], body, flags=DUMP)
        except OSError as error:
            if error.errno in _MISSING:
                return []
            raise


def lookup(netns: NetnsHandle) -> Lookup:
    """Return a Lookup for the namespace."""
    return Lookup(connected(netns))


def _request(command: int, family: str, body: bytes) -> Request:
    return Request(command, FAMILIES[family], body)


def _chain_request(family: str, table: str, chain: str) -> Request:
    return _request(_GET_CHAIN, family, text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain))


def _split_elements(answer: bytes) -> list[dict[int, bytes]]:
    elements = dict(attributes(answer[BODY:])).get(_LIST_ELEMENTS, b"")
    return [dict(attributes(element)) for _, element in attributes(elements)]


@lru_cache(_CACHE_SIZE)
def _encode_part(part: str) -> bytes:
    """Encode one part of a key as in the kernel's registers, padded to a multiple of four bytes."""
    if part.startswith('"'):
        return os.fsencode(part.strip('"')).ljust(_IFNAME_LENGTH, b"\0")
    if MAC.fullmatch(part):
        return bytes.fromhex(part.replace(":", "")) + b"\0\0"
    if part in PROTOCOLS:
        return bytes([PROTOCOLS[part], 0, 0, 0])
    if part.isdecimal():
        return int(part).to_bytes(2, "big") + b"\0\0"
    return inet_pton(AF_INET6 if ":" in part else AF_INET, part)


def encode_key(key: str) -> bytes:
    """Encode a key, or the value of a map of addresses and ports, from nft's notation (see `Lookup.element`)."""
    return b"".join(map(_encode_part, key.split(" . ")))


def decode_ifname(key: bytes) -> str:
    """Decode a key that is an interface name."""
    return os.fsdecode(key.rstrip(b"\0"))


def element_list(table: str, set_name: str, element: bytes) -> bytes:
    """Return the attributes of a request about one element, given the attributes of the element."""
    elements = attribute(_LIST_ELEMENTS, attribute(_LIST_ELEMENT, element, nested=True), nested=True)
    return _set_attributes(table, set_name) + elements


@lru_cache(_CACHE_SIZE)
def _set_attributes(table: str, set_name: str) -> bytes:
    return text(_LIST_TABLE, table) + text(_LIST_SET, set_name)


def _parse_element(fields: Mapping[int, bytes]) -> FoundElement:
    data = dict(attributes(fields.get(ELEMENT_DATA, b"")))
    verdict = dict(attributes(data.get(VERDICT, b"")))
    name, chain = fields.get(ELEMENT_OBJECT, b""), verdict.get(VERDICT_CHAIN, b"")
    comment = _parse_comment(fields.get(ELEMENT_USERDATA, b""))
    return FoundElement(comment, data.get(VALUE, b""), name.rstrip(b"\0").decode(), chain.rstrip(b"\0").decode())


def _parse_comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == USERDATA_COMMENT:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""
