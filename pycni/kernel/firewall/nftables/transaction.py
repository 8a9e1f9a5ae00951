"""Transactions of set elements and counters over nftables' netlink protocol.

libnftables would read all tables and sets first, which takes several times as long as the transaction. Other changes,
such as rules, are text in nft's language and run through libnftables. So does a transaction that the kernel refuses for
a reason that only libnftables can explain.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pycni.kernel.firewall.nfnetlink import NFTABLES, Request, attribute, connected, text
from pycni.kernel.firewall.nftables.lookup import (
    COUNTER,
    ELEMENT_DATA,
    ELEMENT_KEY,
    ELEMENT_OBJECT,
    ELEMENT_USERDATA,
    FAMILIES,
    USERDATA_COMMENT,
    VALUE,
    VERDICT,
    VERDICT_CHAIN,
    element_list,
    encode_key,
)
from pycni.kernel.firewall.nftables.nft import NftError, opened
from pycni.kernel.netns.handle import NetnsHandle

_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_OBJECT, _DELETE_OBJECT = 12, 14, 18, 20
_EXCLUSIVE, _CREATE = 0x200, 0x400
_FLAGS = {"create": _CREATE | _EXCLUSIVE, "add": _CREATE, "delete": 0}
_VERDICT_CODE = 1
_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_GOTO = (-4).to_bytes(4, "big", signed=True)
_NFT_ERRORS = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY})  # those that NftError distinguishes

Verb = Literal["create", "add", "delete"]  # "create" fails if the object exists, "delete" if it does not


class ElementChange(NamedTuple):
    """Addition or removal of an element. `key` and `value` (maps only) are as nft writes them."""

    verb: Verb
    table: str
    set_name: str
    key: str
    comment: str = ""
    value: str = ""

    def __str__(self) -> str:
        comment, value = f' comment "{self.comment}"' if self.comment else "", f" : {self.value}" if self.value else ""
        return f"{self.verb} element {self.table} {self.set_name} {{ {self.key}{comment}{value} }}"

    def request(self) -> Request:
        """Return the netlink request."""
        family, _, table = self.table.partition(" ")
        element = attribute(ELEMENT_KEY, attribute(VALUE, encode_key(self.key)), nested=True)
        if self.value and self.verb != "delete":
            element += _encode_value(self.value)
        if self.comment:
            comment = self.comment.encode() + b"\0"
            element += attribute(ELEMENT_USERDATA, bytes((USERDATA_COMMENT, len(comment))) + comment)
        command = _DELETE_ELEMENT if self.verb == "delete" else _NEW_ELEMENT
        return Request(command, FAMILIES[family], element_list(table, self.set_name, element), _FLAGS[self.verb])


class CounterChange(NamedTuple):
    """Addition or removal of a named counter."""

    verb: Verb
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.verb} counter {self.table} {self.name}"

    def request(self) -> Request:
        """Return the netlink request."""
        family, _, table = self.table.partition(" ")
        body = text(_TABLE, table) + text(_OBJECT_NAME, self.name) + attribute(_OBJECT_TYPE, COUNTER)
        if self.verb == "delete":
            return Request(_DELETE_OBJECT, FAMILIES[family], body, 0)
        body += attribute(_OBJECT_DATA, b"", nested=True)
        return Request(_NEW_OBJECT, FAMILIES[family], body, _FLAGS[self.verb])


Change = ElementChange | CounterChange


def apply(netns: NetnsHandle, changes: Sequence[Change | str]) -> None:
    """Apply all changes in one transaction, or none of them. Raises NftError.

    A string is a command in nft's language. If there is one, libnftables runs all changes.
    """
    requests = [change.request() for change in changes if not isinstance(change, str)]
    if len(requests) == len(changes) and _apply_requests(netns, changes, requests):
        return
    opened(netns).run("\n".join(map(str, changes)))


def _apply_requests(netns: NetnsHandle, changes: Sequence[object], requests: Sequence[Request]) -> bool:
    """Return whether the kernel accepted the transaction; False if libnftables shall explain why not.

    Raises NftError if the reason is clear: an object is missing, exists already or is in use.
    """
    refusals = connected(netns).transact(NFTABLES, requests)
    if not refusals:
        return True
    number, code = min(refusals.items())
    if code not in _NFT_ERRORS:
        return False
    raise NftError(_script(changes), f"{os.strerror(code)}: {changes[number]}")


def _script(changes: Iterable[object]) -> str:
    return "\n".join(map(str, changes))


def _encode_value(value: str) -> bytes:
    """Return the attribute of an element's value: an address and a port, `goto` a chain, or an object's name."""
    if value.startswith('"'):
        return text(ELEMENT_OBJECT, value.strip('"'))
    if value.startswith("goto "):
        verdict = attribute(_VERDICT_CODE, _GOTO) + text(VERDICT_CHAIN, value.removeprefix("goto "))
        return attribute(ELEMENT_DATA, attribute(VERDICT, verdict, nested=True), nested=True)
    return attribute(ELEMENT_DATA, attribute(VALUE, encode_key(value)), nested=True)
