"""Models of configurations, which plugins declare, validated as strictly as the Go plugins do.

Keys match in any letter case, null counts as absent, and unknown keys are ignored. Types are strict: 1500.0 and "1500"
are not integers, "true" is not a boolean. A plugin adds rules of its own as pydantic validators that raise ValueError.
See docs/reference/protocol.md#options-of-plugins.
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
MasqBackend = Annotated[str, AfterValidator(lambda text: _check_backend(text, ("", "nftables", "iptables")))]
RouteField = Annotated[Route, PlainValidator(Route.from_document)]
DnsField = Annotated[Dns, PlainValidator(Dns.from_document)]

_CACHE_SIZE, _MAX_CACHED_LENGTH = 64, 1 << 14  # number of cached configurations, and characters of each
_MUTABLE = frozenset({Any, dict, list, set, Mapping})
_MAX_ATTEMPTS = 32  # of lenient reading, each of which leaves out the members that are invalid so far


_QUADS = r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}"


def _checked(text: str, check: Callable[[str], None]) -> str:
    """Return the text. Raise ValueError with the message of the CniError that `check` raises."""
    try:
        check(text)
    except CniError as error:
        raise ValueError(f'{error}: "{text}"') from None
    return text


def _check_backend(backend: str, known: tuple[str, ...]) -> str:
    if backend not in known:
        raise ValueError(f'unknown ipmasq backend "{backend}": use nftables, the default, or iptables')
    return backend


def _with_colons(mac: str) -> str:
    """Return the MAC address with colons instead of dashes (02-00-5e-…) or dots (0200.5e00.5301)."""
    return bytes.fromhex(mac.replace(".", "")).hex(":") if re.fullmatch(_QUADS, mac) else mac.replace("-", ":")


def _check_mac(text: str) -> None:
    if text and (not address.MAC.fullmatch(text) or int(text[:2], 16) & 1):
        raise CniError("invalid MAC address, it must be six hexadecimal octets of a unicast address")


class Model(BaseModel):
    """Base class of the parts of a configuration: a frozen pydantic model. snake_case fields are camelCase in JSON.

    Calls with the same configuration may share one object, so validators must depend on the values only.

        class Vlan(Model):
            id: int = Field(ge=1, le=4094)
            mac_spoof_check: bool = Field(False, alias="macspoofchk")
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # build a validator when it is first used
    )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the configuration in a JSON object. Raises ConfigError (code 7), which lists all invalid members."""
        try:
            return _validate(cls, json.dumps(_normalize(document, cls)))
        except ValidationError as error:
            raise ConfigError(f"failed to load netconf: {'; '.join(_messages(error))}") from None

    @classmethod
    def read_leniently(cls, document: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Return the valid part of a configuration and the error messages about the rest, for DEL and GC.

        An invalid member at any depth has its default, or None if it is required. A validator of the whole model that
        fails is skipped.
        """
        text, messages = json.dumps(_normalize(document, cls)), list[str]()
        normalized = json.loads(text)  # a copy, from which invalid members are removed
        for _ in range(_MAX_ATTEMPTS):
            try:
                return _validate(cls, text), messages
            except ValidationError as error:
                messages += _messages(error)
                invalid = [found for item in error.errors() if (found := _find_invalid_member(normalized, item["loc"]))]
                if not invalid:
                    break
                for parent, member in invalid:
                    parent.pop(member, None)
                text = json.dumps(normalized)
        return cls._without_rules(normalized), messages

    @classmethod
    def _without_rules(cls, normalized: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            values[name] = None if field.is_required() else field.get_default(call_default_factory=True)
            if (alias := field.alias or name) in normalized:
                with suppress(ValueError):
                    values[name] = _field_validator(cls, name).validate_json(json.dumps(normalized[alias]), strict=True)
        return cls.model_construct(**values)  # type: ignore[return-value]


def build_models() -> None:
    """Build the validators of all models in advance, for a process that answers many calls.

    A model that cannot be built is ignored here. Its first use fails.
    """
    models: list[type[Model]] = [Model]
    for model in models:
        models += model.__subclasses__()
        with suppress(Exception):
            model.model_rebuild()
            _members(model)
            _is_immutable(model)


class Ipam(Model):
    """The member `ipam` of a configuration. The IPAM plugin validates everything but its `type`."""

    type: str = ""


class MacSource(Model):
    """An object that may request a MAC address, such as `runtimeConfig` or `args.cni`."""

    mac: Mac = ""

    @classmethod
    def from_cni_args(cls, cni_args: Mapping[str, str]) -> str:
        """Return the `MAC` of CNI_ARGS, normalized; "" if there is none. Raises ConfigError if it is invalid."""
        mac = cni_args.get("MAC", "")
        return cls.read({"mac": mac}).mac if mac else ""


class NetConf(Model):
    """Base class of the configuration of a plugin, with the members that every configuration has (SPEC section 1).

    class PtpConfig(NetConf):
        needs_addresses = "ptp routes to the container by its address"

        mtu: int = Field(0, ge=0)
        ip_masq: bool = False  # "ipMasq" in JSON
    """

    needs_addresses: ClassVar[str] = ""  # the reason, if an IPAM plugin is required

    name: str = ""
    cni_version: str = ""
    type: str = ""
    ipam: Ipam = Ipam()
    dns: DnsField = Dns()

    @model_validator(mode="after")
    def _require_ipam(self) -> Self:
        if self.needs_addresses and not self.ipam.type:
            raise ValueError(f"ipam.type is missing: {self.needs_addresses}")
        return self

    def problems(self) -> Iterator[str]:
        """Yield further problems of the configuration as "PATH: PROBLEM", for `pycni validate`.

        For rules that are not validators of the model, because DEL must work with configurations that violate them.
        """
        yield from ()


M = TypeVar("M", bound=Model)


def _validate(model: type[M], text: str) -> M:
    """Return the model of a JSON text. Raises ValidationError."""
    if len(text) > _MAX_CACHED_LENGTH or not _is_immutable(model):
        return model.model_validate_json(text)
    return _validate_cached(model, text)  # type: ignore[return-value] # lru_cache knows no generics


# A server gets the same few configurations again and again, and validation takes most of the time of a short call.
@lru_cache(maxsize=_CACHE_SIZE)
def _validate_cached(model: type[Model], text: str) -> Model:
    return model.model_validate_json(text)


@cache
def _is_immutable(model: type[Model]) -> bool:
    """Return whether objects of the model cannot be changed, so that calls may share them."""
    models = [model]  # and the models of its fields, at any depth
    for one in models:
        parts = {part for field in one.model_fields.values() for part in _parts(field.annotation)}
        if parts & _MUTABLE:
            return False
        models += [part for part in parts if _is_model(part) and part not in models]
    return True


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield a type and the types in its parameters, at any depth."""
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Model)


def _normalize(value: object, model: type[Model] | None) -> Any:
    """Return the JSON value with only the keys of the model, in the spelling of the model, and without nulls."""
    if model is None:
        return value
    if isinstance(value, list):
        return [_normalize(item, model) for item in value]
    if not isinstance(value, dict):
        return value
    members, result = _members(model), {}
    for key, item in value.items():
        known = members.get(key.casefold())
        if known is not None and item is not None:
            result[known[0]] = _normalize(item, known[1])
    return result


@cache
def _members(model: type[Model]) -> dict[str, tuple[str, type[Model] | None]]:
    """Return for each case-folded key its spelling in the model and the model of its value, if it has one."""
    return {
        (field.alias or name).casefold(): (field.alias or name, next(filter(_is_model, _parts(field.annotation)), None))
        for name, field in model.model_fields.items()
    }


@cache
def _field_validator(model: type[Model], name: str) -> "TypeAdapter[Any]":
    """Return the validator of a single field."""
    field = model.model_fields[name]
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


def _messages(error: ValidationError) -> list[str]:
    """Return a message for each invalid member: its path, the violated rule and its value."""
    messages = []
    for item in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _path(item["loc"])).lstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] not in ("missing", "value_error"):
            message += f", not {json.dumps(item['input'], default=str)[:60]}"
        messages.append(f"{path}: {message}" if path else message)
    return messages


def _find_invalid_member(document: dict[str, Any], loc: tuple[int | str, ...]) -> tuple[dict[str, Any], str] | None:
    """Return the innermost object on the path `loc` of an error, and the name of its member on that path.

    The member is the invalid one, or the list that contains the invalid item. None if the error has no path.
    """
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
    """Return the path of an error without pydantic's names of the branches of a union."""
    return tuple(part for part in loc if isinstance(part, int) or part.isidentifier() or part.startswith("$"))
