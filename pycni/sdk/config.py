"""Configurations: what a plugin author declares, checked as strictly as the Go plugins do, with better words.

Keys match in any letter case, null counts as absent, unknown keys are ignored; 1500.0 is no integer and "true" no
boolean. A rule of your own is a pydantic validator that raises ValueError with a message for whoever wrote the file.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pycni.protocol import address
from pycni.protocol.errors import CniError, ConfigError
from pycni.protocol.names import check_ifname
from pycni.protocol.result import Dns, Route
from pycni.sdk.models import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
    to_camel,
)

Address = Annotated[address.Address, PlainValidator(address.parse_ip)]
Cidr = Annotated[address.Cidr, PlainValidator(address.parse_cidr)]
Ifname = Annotated[str, AfterValidator(lambda text: _checked(text, check_ifname))]
OptionalIfname = Annotated[str, AfterValidator(lambda text: text and _checked(text, check_ifname))]
Mac = Annotated[str, AfterValidator(lambda text: _checked(_with_colons(text.lower()), _check_mac))]
MasqBackend = Annotated[str, AfterValidator(lambda text: _checked_backend(text, ("", "nftables", "iptables")))]
RouteField = Annotated[Route, PlainValidator(Route.from_document)]
DnsField = Annotated[Dns, PlainValidator(Dns.from_document)]

_REMEMBERED, _REMEMBERED_LENGTH = 64, 1 << 14  # how many configurations, and of how many letters
_MUTABLE = frozenset({Any, dict, list, set, Mapping})
_FALLBACKS = 32  # how many wrong members a DEL leaves out before it gives up on the configuration


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_QUADS = re.compile(r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}")


def _checked(text: str, check: Callable[[str], None]) -> str:
    """The text, or the CNI error of the check as a complaint about the configuration."""
    try:
        check(text)
    except CniError as error:
        raise ValueError(f'{error}: "{text}"') from None
    return text


def _checked_backend(backend: str, known: tuple[str, ...]) -> str:
    if backend not in known:
        raise ValueError(f'unknown ipmasq backend "{backend}": there are nftables, which is the default, and iptables')
    return backend


def _with_colons(mac: str) -> str:
    """The hardware address as the kernel writes it, of one with dashes, or with dots as Cisco writes it."""
    return bytes.fromhex(mac.replace(".", "")).hex(":") if _QUADS.fullmatch(mac) else mac.replace("-", ":")


def _check_mac(text: str) -> None:
    if text and (not _MAC.fullmatch(text) or int(text[:2], 16) & 1):
        raise CniError("invalid MAC address, six hexadecimal octets of a unicast address are wanted")


class Model(BaseModel):
    """A frozen part of a configuration; snake_case fields have camelCase names in JSON.

    Calls with the same configuration may get the same object, so what a validator says depends on the values alone.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # only what a call validates is built
    )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The configuration in a JSON object. Raises ConfigError (code 7) that names every wrong member."""
        try:
            return _validated(cls, json.dumps(_fold(document, cls)))
        except ValidationError as error:
            raise ConfigError(f"failed to load netconf: {'; '.join(_complaints(error))}") from None

    @classmethod
    def read_leniently(cls, document: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """What can be understood of it, and the complaints about the rest: DEL must not fail on a configuration.

        Members that are wrong fall back to their defaults, each by itself however deep it stands; rules about several
        members do not apply.
        """
        text, complaints = json.dumps(_fold(document, cls)), list[str]()
        folded = json.loads(text)  # a copy, to leave things out of
        for _ in range(_FALLBACKS):
            try:
                return _validated(cls, text), complaints
            except ValidationError as error:
                complaints += _complaints(error)
                wrong = [place for item in error.errors() if (place := _innermost_member(folded, item["loc"]))]
                if not wrong:
                    break
                for parent, member in wrong:
                    parent.pop(member, None)
                text = json.dumps(folded)
        return cls._without_rules(folded), complaints

    @classmethod
    def _without_rules(cls, folded: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            values[name] = None if field.is_required() else field.get_default(call_default_factory=True)
            if (alias := field.alias or name) in folded:
                with suppress(ValueError):
                    values[name] = _field(cls, name).validate_json(json.dumps(folded[alias]), strict=True)
        return cls.model_construct(**values)  # type: ignore[return-value]


def build_models() -> None:
    """Build all models there are, for a process that answers many calls; else the first call builds what it needs.

    One that cannot be built is left for that call to complain about.
    """
    models: list[type[Model]] = [Model]
    for model in models:
        models += model.__subclasses__()
        with suppress(Exception):
            model.model_rebuild()
            _members(model)
            _may_be_shared(model)


class Ipam(Model):
    """The section `ipam`; everything but its type is the IPAM plugin's business."""

    type: str = ""


class MacSource(Model):
    """Where a MAC may be asked for, such as runtimeConfig and args.cni."""

    mac: Mac = ""

    @classmethod
    def from_cni_args(cls, cni_args: Mapping[str, str]) -> str:
        """The MAC that CNI_ARGS asks for; empty if it asks for none. Raises ConfigError."""
        asked = cni_args.get("MAC", "")
        return cls.read({"mac": asked}).mac if asked else ""


class NetConf(Model):
    """The configuration of a plugin; derive yours from it."""

    needs_addresses: ClassVar[str] = ""  # why, if there must be an IPAM plugin

    name: str = ""
    cni_version: str = ""
    type: str = ""
    ipam: Ipam = Ipam()
    dns: DnsField = Dns()

    @model_validator(mode="after")
    def _there_are_addresses(self) -> Self:
        if self.needs_addresses and not self.ipam.type:
            raise ValueError(f"ipam.type is missing: {self.needs_addresses}")
        return self

    def complaints(self) -> Iterator[str]:
        """What ADD would refuse beyond the types of the fields, as `path: what is wrong`; for `pycni validate`.

        Rules that only ADD may apply, because DEL must work without them, are told here too.
        """
        yield from ()


M = TypeVar("M", bound=Model)


def _validated(model: type[M], text: str) -> M:
    """The model of a JSON text. Raises ValidationError."""
    if len(text) > _REMEMBERED_LENGTH or not _may_be_shared(model):
        return model.model_validate_json(text)
    return _validated_before(model, text)  # type: ignore[return-value] # lru_cache knows no generics


# A server sees the same few networks again and again, and checking one takes longer than anything else in a short call.
@lru_cache(maxsize=_REMEMBERED)
def _validated_before(model: type[Model], text: str) -> Model:
    return model.model_validate_json(text)


@cache
def _may_be_shared(model: type[Model]) -> bool:
    """Whether nothing in it can be changed by a call that has it."""
    models = [model]  # this one, and those that its fields lead to
    for one in models:
        parts = {part for field in one.model_fields.values() for part in _parts(field.annotation)}
        if parts & _MUTABLE:
            return False
        models += [part for part in parts if _is_model(part) and part not in models]
    return True


def _parts(annotation: Any) -> Iterator[Any]:
    """A type, and the types that it is made of."""
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Model)


def _fold(value: object, model: type[Model] | None) -> Any:
    """The JSON value with the keys that the model knows, as it writes them, without its nulls."""
    if model is None:
        return value
    if isinstance(value, list):
        return [_fold(item, model) for item in value]
    if not isinstance(value, dict):
        return value
    members, result = _members(model), {}
    for key, item in value.items():
        known = members.get(key.casefold())
        if known is not None and item is not None:
            result[known[0]] = _fold(item, known[1])
    return result


@cache
def _members(model: type[Model]) -> dict[str, tuple[str, type[Model] | None]]:
    """By the key in lower case: the key as the model writes it, and the model of its value if it has one."""
    return {
        (field.alias or name).casefold(): (field.alias or name, next(filter(_is_model, _parts(field.annotation)), None))
        for name, field in model.model_fields.items()
    }


@cache
def _field(model: type[Model], name: str) -> "TypeAdapter[Any]":
    """What validates one field by itself."""
    field = model.model_fields[name]
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


def _complaints(error: ValidationError) -> list[str]:
    """What is wrong, member by member: its path in the document, the rule, and what stands there."""
    complaints = []
    for item in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _path(item["loc"])).lstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] not in ("missing", "value_error"):
            message += f", not {json.dumps(item['input'], default=str)[:60]}"
        complaints.append(f"{path}: {message}" if path else message)
    return complaints


def _innermost_member(document: dict[str, Any], loc: tuple[int | str, ...]) -> tuple[dict[str, Any], str] | None:
    """The deepest object on the way to a complaint, and the name of its member that leads on or is wrong itself."""
    found: tuple[dict[str, Any], str] | None = None
    value: Any = document
    for part in _path(loc):
        if isinstance(value, dict) and part in value:
            found = value, str(part)
        elif not isinstance(value, list) or not isinstance(part, int) or part >= len(value):
            break
        value = value[part]
    return found


def _path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The place of a complaint without pydantic's names for the branches of a union."""
    return tuple(part for part in loc if isinstance(part, int) or part.isidentifier() or part.startswith("$"))
