"""One object of nftables, asked for by its name or key.

libnftables reads whole tables to answer such questions, and twice that if the answer is no; the kernel needs
20 microseconds, however many there are.
"""

import errno
import os
import re
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

FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_ELEMENT, _GET_OBJECT = 1, 4, 7, 13, 19
_TABLE_NAME, _CHAIN_TABLE, _CHAIN_NAME, _CHAIN_POLICY, _CHAIN_USE, _RULE_TABLE, _RULE_CHAIN = 1, 1, 3, 5, 6, 1, 2
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_USE = 1, 2, 3, 5
COUNTER = (1).to_bytes(4, "big")  # a type of object
_POLICIES = ("drop", "accept")
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _USERDATA, _OBJECT = 1, 2, 6, 9
_VALUE, _VERDICT, _VERDICT_CHAIN = 1, 2, 2
_COMMENT = 0  # of userdata: a byte of type, a byte of length, a string
_IFNAME = 16
_REMEMBERED = 128
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")

# What the kernel answers where the thing, or all of nftables, is missing, or where no thing has a name that long.
_MISSING = frozenset({errno.ENOENT, errno.ERANGE, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})


class Found(NamedTuple):
    """An element as the kernel has it."""

    comment: str = ""
    data: bytes = b""
    object: str = ""  # of a map of objects: the name of the object
    chain: str = ""  # of a map of verdicts: where it leads

    @property
    def address_and_port(self) -> str:
        """Its data, if that is an address and a port, as nft writes it."""
        address, port = self.data[:-4], self.data[-4:-2]
        return f"{ip_address(address)} . {int.from_bytes(port, 'big')}"


class Lookup:
    """Questions to the nftables of one namespace."""

    def __init__(self, socket: NfnetlinkSocket) -> None:
        self._socket = socket
        self._seen: dict[tuple[str, str, str], Found | None] = {}

    def tables(self, families: Iterable[str], table: str) -> list[str]:
        """Those of the families that have a table of this name."""
        wanted = list(families)
        answers = self._ask([_request(_GET_TABLE, family, text(_TABLE_NAME, table)) for family in wanted])
        return [family for family, answer in zip(wanted, answers, strict=True) if answer is not None]

    def chains(self, families: Iterable[str], table: str, chain: str) -> list[str]:
        """Those of the families that have such a chain."""
        wanted = list(families)
        answers = self._ask([_chain(family, table, chain) for family in wanted])
        return [family for family, answer in zip(wanted, answers, strict=True) if answer is not None]

    def has_chain(self, family: str, table: str, chain: str) -> bool:
        """Whether there is such a chain."""
        return bool(self.chains([family], table, chain))

    def policies(self, families: Iterable[str], table: str, chain: str) -> dict[str, str]:
        """What happens at the end of a base chain, "accept" or "drop", by those of the families that have the chain."""
        wanted = list(families)
        answers = self._ask([_chain(family, table, chain) for family in wanted])
        policies = [dict(attributes(answer[BODY:])).get(_CHAIN_POLICY) if answer else None for answer in answers]
        return {
            family: _POLICIES[int.from_bytes(policy, "big")]
            for family, policy in zip(wanted, policies, strict=True)
            if policy is not None
        }

    def uses(self, family: str, table: str, chains: Iterable[str]) -> list[int]:
        """Of each chain, how many rules it has and how many rules or elements lead to it together; 0 if it is gone."""
        answers = self._ask([_chain(family, table, chain) for chain in chains])
        return [int.from_bytes(dict(attributes(a[BODY:])).get(_CHAIN_USE, b""), "big") if a else 0 for a in answers]

    def counter_uses(self, family: str, table: str, counter: str) -> int:
        """How many elements and rules refer to the counter; 0 if it is gone."""
        where = text(_OBJECT_TABLE, table) + text(_OBJECT_NAME, counter) + attribute(_OBJECT_TYPE, COUNTER)
        (answer,) = self._ask([_request(_GET_OBJECT, family, where)])
        return int.from_bytes(dict(attributes(answer[BODY:])).get(_OBJECT_USE, b""), "big") if answer else 0

    def rules(self, family: str, table: str, chain: str) -> int:
        """How many rules the chain has; none if it is missing."""
        where = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
        return len(self._list(_GET_RULE, family, where))

    def element(self, table: str, place: str, key: str) -> Found | None:
        """The element with this key, as nft writes it, in a set or map of the table; None if there is none.

        A key is made of addresses, MACs, protocols, ports and the names of interfaces: `"cni0" . 10.1.0.2 . tcp . 80`.
        """
        if (table, place, key) in self._seen:
            return self._seen[table, place, key]
        (found,) = self._at(table, [(place, key)])
        return found

    def look_ahead(self, table: str, places_and_keys: Iterable[tuple[str, str]]) -> None:
        """Ask for all these elements at once; `element` knows them then, and nothing of what it was told before."""
        wanted = list(dict.fromkeys(places_and_keys))
        found = self._at(table, wanted)
        self._seen = {(table, *where): element for where, element in zip(wanted, found, strict=True)}

    def _at(self, table: str, places_and_keys: Iterable[tuple[str, str]]) -> list[Found | None]:
        family, _, name = table.partition(" ")
        keys = [(place, attribute(_KEY, attribute(_VALUE, key_of(key)), nested=True)) for place, key in places_and_keys]
        answers = self._ask([_request(_GET_ELEMENT, family, element_list(name, place, key)) for place, key in keys])
        return [None if answer is None else _found(_elements_in(answer)[0]) for answer in answers]

    def elements_ending(self, table: str, place: str, end: str) -> list[Found]:
        """All elements whose keys end so; of the others nothing but the key is looked at."""
        wanted = key_of(end)
        return [_found(fields) for key, fields in self._listed(table, place) if key.endswith(wanted)]

    def elements(self, table: str, place: str) -> list[tuple[bytes, Found]]:
        """All elements with their keys."""
        return [(key, _found(fields)) for key, fields in self._listed(table, place)]

    def _listed(self, table: str, place: str) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        family, _, name = table.partition(" ")
        for answer in self._list(_GET_ELEMENT, family, _place(name, place)):
            for fields in _elements_in(answer):
                yield dict(attributes(fields[_KEY]))[_VALUE], fields

    def _ask(self, requests: Sequence[Request]) -> list[bytes | None]:
        """What the kernel answers to each; None if what is asked about is missing."""
        answers = self._socket.ask_all(NFTABLES, requests) if requests else []
        for answer in answers:
            if isinstance(answer, int) and answer not in _MISSING:
                raise OSError(answer, os.strerror(answer).lower())
        return [None if isinstance(answer, int) else answer for answer in answers]

    def _list(self, command: int, family: str, body: bytes) -> list[bytes]:
        """What the kernel lists; nothing if what it is to look into is missing."""
        try:
            return self._socket.ask(NFTABLES, command, FAMILIES[family], body, flags=DUMP)
        except OSError as error:
            if error.errno in _MISSING:
                return []
            raise


def _request(command: int, family: str, body: bytes) -> Request:
    return Request(command, FAMILIES[family], body)


def _chain(family: str, table: str, chain: str) -> Request:
    return _request(_GET_CHAIN, family, text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain))


def _elements_in(answer: bytes) -> list[dict[int, bytes]]:
    elements = dict(attributes(answer[BODY:])).get(_LIST_ELEMENTS, b"")
    return [dict(attributes(element)) for _, element in attributes(elements)]


def lookup(netns: NetnsHandle) -> Lookup:
    """Who answers about the nftables of the namespace behind the door."""
    return Lookup(connected(netns))


@lru_cache(_REMEMBERED)
def _encoded(part: str) -> bytes:
    """One part of a key as the kernel's registers hold it: in multiples of four bytes."""
    if part.startswith('"'):
        return os.fsencode(part.strip('"')).ljust(_IFNAME, b"\0")
    if _MAC.fullmatch(part):
        return bytes.fromhex(part.replace(":", "")) + b"\0\0"
    if part in PROTOCOLS:
        return bytes([PROTOCOLS[part], 0, 0, 0])
    if part.isdecimal():
        return int(part).to_bytes(2, "big") + b"\0\0"
    return inet_pton(AF_INET6 if ":" in part else AF_INET, part)


def key_of(words: str) -> bytes:
    """A key, or the value of a map, as the kernel has it, of what nft writes: see `Lookup.element`."""
    return b"".join(map(_encoded, words.split(" . ")))


def interface_in(key: bytes) -> str:
    """The name of an interface that is a key."""
    return os.fsdecode(key.rstrip(b"\0"))


def element_list(table: str, place: str, element: bytes) -> bytes:
    """The attributes of a message about one element."""
    elements = attribute(_LIST_ELEMENTS, attribute(_LIST_ELEMENT, element, nested=True), nested=True)
    return _place(table, place) + elements


@lru_cache(_REMEMBERED)
def _place(table: str, place: str) -> bytes:
    return text(_LIST_TABLE, table) + text(_LIST_SET, place)


def _found(fields: Mapping[int, bytes]) -> Found:
    data = dict(attributes(fields.get(_DATA, b"")))
    verdict = dict(attributes(data.get(_VERDICT, b"")))
    name, chain = fields.get(_OBJECT, b""), verdict.get(_VERDICT_CHAIN, b"")
    comment = _comment(fields.get(_USERDATA, b""))
    return Found(comment, data.get(_VALUE, b""), name.rstrip(b"\0").decode(), chain.rstrip(b"\0").decode())


def _comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""
