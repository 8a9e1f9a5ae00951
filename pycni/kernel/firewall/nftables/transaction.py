"""Transactions of set elements and counters in the kernel's own words.

libnftables reads all tables and sets first, which takes several times as long as the transaction itself. Whatever else
a script says it has to translate; so it does where the kernel refuses in a way that needs explaining.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pycni.kernel.firewall.nfnetlink import NFTABLES, Request, attribute, connected, text
from pycni.kernel.firewall.nftables.lookup import COUNTER, FAMILIES, element_list, key_of
from pycni.kernel.firewall.nftables.nft import NftError, opened
from pycni.kernel.netns.handle import NetnsHandle

_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_OBJECT, _DELETE_OBJECT = 12, 14, 18, 20
_EXCLUSIVE, _CREATE = 0x200, 0x400
_FLAGS = {"create": _CREATE | _EXCLUSIVE, "add": _CREATE, "delete": 0}
_KEY, _DATA, _USERDATA, _OBJECT = 1, 2, 6, 9
_VALUE, _VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_GOTO = (-4).to_bytes(4, "big", signed=True)
_COMMENT = 0  # of userdata: a byte of type, a byte of length, a string
_EXPLAINED = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY})  # what NftError tells apart

Verb = Literal["create", "add", "delete"]  # "create" fails if it is there, "add" does not, "delete" fails if it is not


class ElementChange(NamedTuple):
    """An element of a set or map, with its key, and in a map its value, as nft writes them."""

    verb: Verb
    table: str
    place: str
    key: str
    comment: str = ""
    value: str = ""

    def __str__(self) -> str:
        comment, value = f' comment "{self.comment}"' if self.comment else "", f" : {self.value}" if self.value else ""
        return f"{self.verb} element {self.table} {self.place} {{ {self.key}{comment}{value} }}"

    def request(self) -> Request:
        """The same as the kernel reads it."""
        family, _, table = self.table.partition(" ")
        element = attribute(_KEY, attribute(_VALUE, key_of(self.key)), nested=True)
        if self.value and self.verb != "delete":
            element += _encoded(self.value)
        if self.comment:
            comment = self.comment.encode() + b"\0"
            element += attribute(_USERDATA, bytes((_COMMENT, len(comment))) + comment)
        command = _DELETE_ELEMENT if self.verb == "delete" else _NEW_ELEMENT
        return Request(command, FAMILIES[family], element_list(table, self.place, element), _FLAGS[self.verb])


class CounterChange(NamedTuple):
    """A named counter."""

    verb: Verb
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.verb} counter {self.table} {self.name}"

    def request(self) -> Request:
        """The same as the kernel reads it."""
        family, _, table = self.table.partition(" ")
        body = text(_TABLE, table) + text(_OBJECT_NAME, self.name) + attribute(_OBJECT_TYPE, COUNTER)
        if self.verb == "delete":
            return Request(_DELETE_OBJECT, FAMILIES[family], body, 0)
        body += attribute(_OBJECT_DATA, b"", nested=True)
        return Request(_NEW_OBJECT, FAMILIES[family], body, _FLAGS[self.verb])


Change = ElementChange | CounterChange


def apply(netns: NetnsHandle, changes: Sequence[Change | str]) -> None:
    """All of these in one transaction, or none. Raises NftError.

    A string is a line that only nft understands; then it is given the others too.
    """
    requests = [change.request() for change in changes if not isinstance(change, str)]
    if len(requests) == len(changes) and _transacted(netns, changes, requests):
        return
    opened(netns).run("\n".join(map(str, changes)))


def _transacted(netns: NetnsHandle, changes: Sequence[object], requests: Sequence[Request]) -> bool:
    """Whether the kernel has done it; False if libnftables is to say what it does not like. Raises NftError."""
    refusals = connected(netns).transact(NFTABLES, requests)
    if not refusals:
        return True
    number, code = min(refusals.items())
    if code not in _EXPLAINED:
        return False
    raise NftError(_script(changes), f"{os.strerror(code)}: {changes[number]}")


def _script(changes: Iterable[object]) -> str:
    return "\n".join(map(str, changes))


def _encoded(value: str) -> bytes:
    """What an element leads to: an address and a port, a chain, or an object."""
    if value.startswith('"'):
        return text(_OBJECT, value.strip('"'))
    if value.startswith("goto "):
        verdict = attribute(_VERDICT_CODE, _GOTO) + text(_VERDICT_CHAIN, value.removeprefix("goto "))
        return attribute(_DATA, attribute(_VERDICT, verdict, nested=True), nested=True)
    return attribute(_DATA, attribute(_VALUE, key_of(value)), nested=True)
