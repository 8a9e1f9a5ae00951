"""Typed access to the members of a JSON object."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from pycni.protocol import go_json
from pycni.protocol.address import Address, Cidr, parse_cidr, parse_ip

T = TypeVar("T")


class JsonObject:
    """The members `names` of a JSON object. Keys match in any letter case, and null counts as absent.

    `where` is the path of the object in its document. Methods raise ValueError with the path of the member if its value
    has another type.
    """

    def __init__(self, document: object, names: Iterable[str], where: str = "") -> None:
        if not isinstance(document, Mapping):
            raise ValueError(f"{where or 'the document'} must be an object, not {go_json.dumps_compact(document)[:40]}")
        self._members = go_json.select_members(document, names)
        self._where = where

    def string(self, name: str) -> str:
        """Return a string; empty if absent."""
        return self._typed(name, str, "a string") or ""

    def integer(self, name: str) -> int | None:
        """Return a signed integer of 64 bits; None if absent."""
        value = self._members.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >> 63):
            raise self._wrong(name, "an integer of 64 bits")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; empty if absent."""
        items = self._typed(name, list, "a list of strings") or []
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(name, "a list of strings")
        return tuple(items)

    def objects(self, name: str, names: Iterable[str]) -> list[Self]:
        """Return a list of objects with the members `names`; empty if absent."""
        items = self._typed(name, list, "a list of objects") or []
        return [type(self)(item, names, f"{self._path(name)}[{i}]") for i, item in enumerate(items)]

    def object(self, name: str, names: Iterable[str]) -> Self | None:
        """Return an object with the members `names`; None if absent."""
        value = self._members.get(name)
        return None if value is None else type(self)(value, names, self._path(name))

    def address(self, name: str) -> Address | None:
        """Return an IP address; None if absent or the empty string."""
        text = self.string(name)
        return self._parsed(name, parse_ip, text) if text else None

    def cidr(self, name: str) -> Cidr:
        """Return an address with a prefix length. It is required."""
        return self._parsed(name, parse_cidr, self.string(name))

    def extension(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """Return the parsed value of a member outside the specification; None if absent or rejected by `parse`."""
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
        return ValueError(f"{self._path(name)} must be {what}, not {go_json.dumps_compact(self._members[name])[:40]}")
