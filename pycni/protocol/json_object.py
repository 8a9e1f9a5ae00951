"""Typed access to the members of a JSON object; what does not fit is a ValueError that names the member."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from pycni.protocol import go_json
from pycni.protocol.address import Address, Cidr, parse_cidr, parse_ip

T = TypeVar("T")


class JsonObject:
    """The members of one object, keys in any letter case; null and absent are the same."""

    def __init__(self, document: object, names: Iterable[str], where: str = "") -> None:
        if not isinstance(document, Mapping):
            raise ValueError(f"{where or 'the document'} is an object, not {go_json.dumps_compact(document)[:40]}")
        self._members = go_json.select_members(document, names)
        self._where = where

    def string(self, name: str) -> str:
        """A string; empty if absent."""
        return self._typed(name, str, "a string") or ""

    def integer(self, name: str) -> int | None:
        """An integer of 64 bits, or None."""
        value = self._members.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >> 63):
            raise self._wrong(name, "an integer of 64 bits")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        items = self._typed(name, list, "a list of strings") or []
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(name, "a list of strings")
        return tuple(items)

    def objects(self, name: str, names: Iterable[str]) -> list[Self]:
        """A list of objects with members of their own."""
        items = self._typed(name, list, "a list of objects") or []
        return [type(self)(item, names, f"{self._path(name)}[{i}]") for i, item in enumerate(items)]

    def object(self, name: str, names: Iterable[str]) -> Self | None:
        """An object with members of its own, or None."""
        value = self._members.get(name)
        return None if value is None else type(self)(value, names, self._path(name))

    def address(self, name: str) -> Address | None:
        """An IP address; absent and the empty string are None."""
        text = self.string(name)
        return self._parsed(name, parse_ip, text) if text else None

    def cidr(self, name: str) -> Cidr:
        """An address with a prefix length, which must be there."""
        return self._parsed(name, parse_cidr, self.string(name))

    def extension(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """A member of ours that others may use for something else: None also where it does not fit."""
        value = self._members.get(name)
        try:
            return None if value is None else parse(value)
        except (TypeError, ValueError):
            return None

    def _typed(self, name: str, kind: type, what: str) -> Any:
        value = self._members.get(name)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(name, what)
        return value

    def _parsed(self, name: str, parse: Callable[[str], T], text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error} ({self._path(name)})") from None

    def _path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _wrong(self, name: str, what: str) -> ValueError:
        return ValueError(f"{self._path(name)} is {what}, not {go_json.dumps_compact(self._members[name])[:40]}")
