"""The part of pydantic's interface that plugins declare models with, implemented on pydantic_core alone.

Importing pydantic takes about half the time of a one-shot process. Nearly all of that is the Python code that turns
class bodies into core schemas; validation and serialization are compiled code in pydantic_core. This module turns class
bodies that use common types and rules into the same core schemas, so values, error messages and JSON are the same.

Anything else raises UnsupportedError. The process then undoes what it has done and starts again with pydantic.
"""

import builtins
import sys
import types
import typing
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from ipaddress import IPv4Address
from types import BuiltinFunctionType, FunctionType, MethodType, UnionType
from typing import Any, ClassVar, NoReturn, Self

in_use = False  # whether pycni.sdk declares its models with this module

_CORE = "pydantic_core._pydantic_core"
_MISSING: Any = object()
_PLAIN_TYPES = {bool: "bool", bytes: "bytes", float: "float", int: "int", str: "str"}
_NUMBERS = frozenset({"int", "float"})
_BOUNDS = frozenset({"ge", "gt", "le", "lt"})
_DESCRIPTIONS = frozenset({"description", "title"})  # arguments of Field() that only a JSON schema contains
# Settings of ConfigDict: those that the core schema also contains, and those that are implemented here.
_CORE_SETTINGS = frozenset({"ser_json_bytes", "strict", "val_json_bytes", "validate_by_alias", "validate_by_name"})
_SETTINGS = _CORE_SETTINGS | {"alias_generator", "defer_build", "extra", "frozen"}
_DEPRECATED = frozenset(
    {
        *("construct", "copy", "dict", "from_orm", "json", "parse_file", "parse_obj", "parse_raw"),
        *("schema", "schema_json", "update_forward_refs", "validate"),
    }
)


class UnsupportedError(BaseException):
    """Something was used that only pydantic has.

    Not an Exception: it ends the call wherever it is raised, as a signal does.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported without pydantic")


def use() -> None:
    """Have pycni.sdk declare its models with this module. Call it before pycni.sdk is used."""
    global in_use  # noqa: PLW0603 - one process, one call
    in_use = True
    sys.meta_path.insert(0, _PydanticFinder)


class _PydanticFinder:
    """Notices that a plugin imports pydantic itself."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name == "pydantic":
            raise UnsupportedError("importing pydantic")
        return None


@cache
def _core() -> Any:
    """Return pydantic_core's compiled module, without the Python part of that package."""
    if _CORE not in sys.modules:
        spec = PathFinder.find_spec(_CORE, [f"{directory}/pydantic_core" for directory in sys.path])
        if spec is None or spec.loader is None:
            raise UnsupportedError("a missing pydantic_core")
        sys.modules[_CORE] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_CORE])
    return sys.modules[_CORE]


def __getattr__(name: str) -> Any:
    if name != "ValidationError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _core().ValidationError


def ConfigDict(**settings: Any) -> dict[str, Any]:  # noqa: N802 - pydantic's name
    """Return the settings of a model."""
    return settings


def _arguments_of(function: Any) -> int:
    """Return how many arguments a function takes, or a method besides its object; -1 if that cannot be told."""
    match function:
        case FunctionType():
            return function.__code__.co_argcount
        case MethodType() | classmethod():
            return _arguments_of(function.__func__) - 1
    return -1


class _Function:
    """Metadata of a field: a function that validates its value."""

    kind: ClassVar[str]

    def __init__(self, func: Callable[[Any], Any]) -> None:
        if not (isinstance(func, type | BuiltinFunctionType) or _arguments_of(func) == 1):
            raise UnsupportedError(f"the validator {func}, which takes more than a value")
        self.func = func

    def applied_to(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": self.kind, "function": {"type": "no-info", "function": self.func}, "schema": schema}


class AfterValidator(_Function):
    """Called with the validated value; returns the value of the field."""

    kind = "function-after"


class BeforeValidator(_Function):
    """Called with the value as it was given; returns the value to validate."""

    kind = "function-before"


class PlainValidator(_Function):
    """Called with the value as it was given, in place of any other validation."""

    kind = "function-plain"

    def applied_to(self, schema: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - replaces it
        return {"type": self.kind, "function": {"type": "no-info", "function": self.func}}


class _Bound:
    """Metadata of a number: a bound."""

    def __init__(self, name: str, bound: float) -> None:
        self.name = name
        self.bound = bound

    def applied_to(self, schema: dict[str, Any]) -> dict[str, Any]:
        if schema["type"] == "nullable":
            return {**schema, "schema": self.applied_to(schema["schema"])}
        if schema["type"] not in _NUMBERS:
            raise UnsupportedError(f"{self.name} for the schema {schema['type']}")
        return {**schema, self.name: self.bound}


class FieldInfo:
    """A field of a model: its type without metadata, its default, its alias, and validators and bounds in order."""

    def __init__(self, default: Any, default_factory: Any, alias: str | None, metadata: list[Any]) -> None:
        self.annotation: Any = None
        self.default = default
        self.default_factory = default_factory
        self.alias = alias
        self.metadata = metadata

    def is_required(self) -> bool:
        """Return whether the field has no default."""
        return self.default is _MISSING and self.default_factory is None

    def get_default(self, *, call_default_factory: bool = False) -> Any:
        """Return the default; None if there is none, or if it must be made and is not asked for."""
        if self.default_factory is not None:
            return self.default_factory() if call_default_factory else None
        return None if self.default is _MISSING else self.default


def Field(  # noqa: N802 - pydantic's name
    default: Any = _MISSING, *, alias: str | None = None, default_factory: Any = None, **rest: Any
) -> Any:
    """Return what a class body says of a field beyond its type."""
    bounds = {name: bound for name, bound in rest.items() if name not in _DESCRIPTIONS}
    if bounds.keys() - _BOUNDS or default is ... or (default_factory and _arguments_of(default_factory) > 0):
        raise UnsupportedError(f"Field({', '.join(rest)})")
    return FieldInfo(default, default_factory, alias, [_Bound(name, bound) for name, bound in bounds.items()])


class _FieldValidator:
    """A class method that validates fields."""

    def __init__(self, fields: tuple[str, ...], mode: str, method: Any) -> None:
        if not isinstance(method, classmethod) or _arguments_of(method) != 1:
            raise UnsupportedError(f"the field validator {method}, which is no class method of a value")
        self.fields = fields
        self.validator = {"after": AfterValidator, "before": BeforeValidator, "plain": PlainValidator}[mode]
        self.method = method


class _ModelValidator:
    """A method that validates a whole model."""

    def __init__(self, method: Any) -> None:
        if not isinstance(method, FunctionType) or _arguments_of(method) != 1:
            raise UnsupportedError(f"the model validator {method}, which is no method without arguments")
        self.method = method


def field_validator(*fields: str, mode: str = "after") -> Callable[[Any], Any]:
    """Mark a class method as a validator of these fields."""
    if "*" in fields or mode == "wrap":
        raise UnsupportedError(f"field_validator of {fields}, {mode}")
    return lambda method: _FieldValidator(fields, mode, method)


def model_validator(*, mode: str) -> Callable[[Any], Any]:
    """Mark a method as a validator of the model, called when its fields are valid."""
    if mode != "after":
        raise UnsupportedError(f"model_validator {mode}")
    return _ModelValidator


def to_camel(name: str) -> str:
    """Return the camelCase form of a snake_case name."""
    words = name.split("_")
    if not all(words) or any(not word.isalpha() and not word.rstrip("0123456789").isalpha() for word in words):
        raise UnsupportedError(f"the field name {name}")
    return words[0] + "".join(word.title() for word in words[1:])


class _ModelType(ABCMeta):
    """The class of models: collects fields, settings and validators from the class body."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **settings: Any) -> Any:
        if settings:
            raise UnsupportedError(f"settings in the head of the class {name}")
        if not bases:
            return super().__new__(mcs, name, bases, namespace)
        validators = {key: value for key, value in namespace.items() if isinstance(value, _MODEL_RULES)}
        cls: Any = super().__new__(mcs, name, bases, namespace | {key: rule.method for key, rule in validators.items()})
        cls.__own_validators__ = validators
        cls.__own_fields__ = {}
        cls.__own_class_variables__ = set()
        for key, annotation in cls.__annotations__.items():
            if annotation is ClassVar or getattr(annotation, "__origin__", None) is ClassVar:
                cls.__own_class_variables__.add(key)
            else:
                cls.__own_fields__[key] = _field(name, key, annotation, namespace.get(key, _MISSING))
                if key in namespace:
                    delattr(cls, key)
        _inherit(cls)
        _expect_nothing_else(cls)
        return cls

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("model_") or name in _DEPRECATED:
            raise UnsupportedError(f"{cls.__name__}.{name}")
        raise AttributeError(name)


def _field(model: str, name: str, annotation: Any, default: Any) -> FieldInfo:
    """Return the field that an annotation and the value assigned to it declare."""
    if isinstance(annotation, str) or name.startswith(("_", "model_")):
        raise UnsupportedError(f"the field {model}.{name}")
    if isinstance(default, FieldInfo):
        field = FieldInfo(default.default, default.default_factory, default.alias, default.metadata)
    else:
        field = FieldInfo(default, None, None, [])
    if type(field.default).__module__.partition(".")[0] == "pydantic" or type(field.default).__hash__ is None:
        raise UnsupportedError(f"the default of {model}.{name}")
    metadata = getattr(annotation, "__metadata__", ())
    field.annotation = annotation.__origin__ if metadata else annotation
    field.metadata = [*_flat(metadata), *field.metadata]
    return field


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    """Yield validators and bounds, those of a Field() in a type included."""
    for item in metadata:
        if isinstance(item, FieldInfo) and item.alias is None and item.is_required():
            yield from item.metadata
        elif isinstance(item, _Function | _Bound):
            yield item
        else:
            raise UnsupportedError(f"the metadata {item!r}")


def _inherit(cls: Any) -> None:
    """Merge fields, settings and validators of the class and its bases, in pydantic's order."""
    cls.__settings__, cls.model_fields, cls.__validators__, cls.__class_variables__ = {}, {}, {}, set()
    for base in reversed(cls.__mro__):
        own = base.__dict__
        if not isinstance(base, _ModelType) and base is not object:
            raise UnsupportedError(f"{base.__name__}, a base of {cls.__name__} that is no model")
        if cls.__validators__.keys() & own.keys():
            raise UnsupportedError(f"a validator of {cls.__name__} that replaces another")
        cls.__class_variables__ |= own.get("__own_class_variables__", set())
        cls.__settings__ |= own.get("model_config", {})
        cls.model_fields |= own.get("__own_fields__", {})
        cls.__validators__ |= own.get("__own_validators__", {})
    generate_alias = cls.__settings__.get("alias_generator")
    for name, field in cls.__own_fields__.items():
        field.alias = field.alias or (generate_alias(name) if generate_alias else None)


def _expect_nothing_else(cls: Any) -> None:
    """Raise UnsupportedError if something in the class body means more to pydantic than to this module."""
    settings = cls.__settings__
    usual = settings.get("extra", "ignore") == "ignore" and settings.get("frozen") and settings.get("strict")
    if settings.keys() - _SETTINGS or not usual:
        raise UnsupportedError(f"the settings of {cls.__name__}, {settings}")
    for validator in cls.__own_validators__.values():
        if isinstance(validator, _FieldValidator) and not set(validator.fields) <= cls.model_fields.keys():
            raise UnsupportedError(f"a validator of fields that {cls.__name__} lacks")
    for name, value in cls.__dict__.items():
        if name in _HOOKS or name.startswith("__get_pydantic_"):
            raise UnsupportedError(f"the method {cls.__name__}.{name}")
        if (name[:2] == name[-2:] == "__") or name in _SET_HERE or name in cls.__class_variables__:
            continue
        if name.startswith("model_") or not (isinstance(value, _METHODS) or type(value).__name__ == "cached_property"):
            raise UnsupportedError(f"the attribute {cls.__name__}.{name}")


_MODEL_RULES = (_FieldValidator, _ModelValidator)
_METHODS = (FunctionType, classmethod, staticmethod, property)
_HOOKS = frozenset({"__init__", "__new__", "__pydantic_init_subclass__", "__pydantic_on_complete__"})
_SET_HERE = frozenset({"_abc_impl", "model_config", "model_fields"})


class BaseModel(metaclass=_ModelType):
    """Base class of models. All of them are frozen."""

    __slots__ = "__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, FieldInfo]] = {}
    __settings__: ClassVar[dict[str, Any]] = {}
    __validators__: ClassVar[dict[str, _FieldValidator | _ModelValidator]] = {}
    __pydantic_fields_set__: set[str]

    def __init__(self, /, **values: Any) -> None:
        if values or self.__validators__ or any(field.is_required() for field in self.model_fields.values()):
            _validator(type(self)).validate_python(values, self_instance=self)
        else:
            _fill(self, {}, set())

    @classmethod
    def model_validate(cls, value: Any, **how: Any) -> Self:
        """Return the model of a mapping, or of an instance. Raises ValidationError."""
        model: Self = _validator(cls).validate_python(value, **how)
        return model

    @classmethod
    def model_validate_json(cls, text: str | bytes, **how: Any) -> Self:
        """Return the model of a JSON text. Raises ValidationError."""
        model: Self = _validator(cls).validate_json(text, **how)
        return model

    @classmethod
    def model_construct(cls, _fields_set: None = None, **values: Any) -> Self:
        """Return a model with these values, which are not validated."""
        if _fields_set is not None:
            raise UnsupportedError("model_construct with a set of fields")
        known = {
            name: values[key]
            for name, field in cls.model_fields.items()
            for key in (field.alias, name)
            if key in values
        }
        model: Self = _fill(cls.__new__(cls), known, set(known))
        return model

    @classmethod
    def model_rebuild(cls, **_: object) -> None:
        """Build what validates and serializes. It would be built when it is first used."""
        _validator(cls)

    @property
    def model_fields_set(self) -> set[str]:
        """The fields that were given."""
        return self.__pydantic_fields_set__

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """Return a dictionary of the fields."""
        dumped: dict[str, Any] = _serializer(type(self)).to_python(self, **how)
        return dumped

    def model_dump_json(self, **how: Any) -> str:
        """Return the JSON text of the fields."""
        text: bytes = _serializer(type(self)).to_json(self, **how)
        return text.decode()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced by values that are not validated."""
        if deep:
            raise UnsupportedError("model_copy(deep=True)")
        new = {key: value for key, value in (update or {}).items() if key in self.model_fields}
        copied: Self = _fill(type(self).__new__(type(self)), self.__dict__ | new, self.model_fields_set | new.keys())
        return copied

    def __copy__(self) -> Self:
        return self.model_copy()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        from copy import deepcopy

        values = {name: deepcopy(value, memo) for name, value in self.__dict__.items()}
        copied: Self = _fill(type(self).__new__(type(self)), values, set(self.model_fields_set))
        return copied

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise UnsupportedError("pickling")

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, value) for name, value in self.__dict__.items() if not name.startswith("_"))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(self.__dict__.get(name) == other.__dict__.get(name) for name in self.model_fields)

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.get(name) for name in self.model_fields))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._assignments())})"

    def __str__(self) -> str:
        return " ".join(self._assignments())

    def _assignments(self) -> Iterator[str]:
        yield from (f"{name}={value!r}" for name, value in self.__dict__.items() if name in self.model_fields)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        error = {"type": "frozen_instance", "loc": (name,), "input": value}
        raise _core().ValidationError.from_exception_data(type(self).__name__, [error])

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("model_") or name in _DEPRECATED:
            raise UnsupportedError(f"{type(self).__name__}.{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class TypeAdapter:
    """A validator of values that are not models, such as a list of numbers."""

    def __init__(self, annotation: Any) -> None:
        self._validator = _core().SchemaValidator(_schema(annotation))

    def validate_json(self, text: str | bytes, *, strict: bool | None = None) -> Any:
        """Return the value of a JSON text. Raises ValidationError."""
        return self._validator.validate_json(text, strict=strict)


def _fill(model: Any, values: dict[str, Any], fields_set: set[str]) -> Any:
    """Give a new instance its values, with defaults for the other fields."""
    complete = {}
    for name, field in model.model_fields.items():
        if name in values:
            complete[name] = values[name]
        elif not field.is_required():
            complete[name] = field.get_default(call_default_factory=True)
    put = object.__setattr__
    put(model, "__dict__", complete)
    put(model, "__pydantic_fields_set__", fields_set)
    put(model, "__pydantic_extra__", None)
    put(model, "__pydantic_private__", None)
    return model


def _validator(model: Any) -> Any:
    """Return what validates a model; it is built when it is first used."""
    if "__pydantic_validator__" not in model.__dict__:
        try:
            model.__pydantic_validator__ = _core().SchemaValidator(core_schema(model))
        except _core().SchemaError as error:
            raise UnsupportedError(f"this version of pydantic_core ({error})") from None
    return model.__pydantic_validator__


def _serializer(model: Any) -> Any:
    if "__pydantic_serializer__" not in model.__dict__:
        model.__pydantic_serializer__ = _core().SchemaSerializer(core_schema(model))
    return model.__pydantic_serializer__


def core_schema(model: Any) -> dict[str, Any]:
    """Return the core schema of a model, the one that pydantic makes of it."""
    settings = {name: value for name, value in model.__settings__.items() if name in _CORE_SETTINGS}
    schema = {
        "type": "model",
        "cls": model,
        "config": {"title": model.__name__, "extra_fields_behavior": "ignore", **settings},
        "custom_init": False,
        "root_model": False,
        "schema": {
            "type": "model-fields",
            "model_name": model.__name__,
            "computed_fields": [],
            "fields": {name: _field_schema(model, name, field) for name, field in model.model_fields.items()},
        },
    }
    for validator in model.__validators__.values():
        if isinstance(validator, _ModelValidator):
            schema = AfterValidator(validator.method).applied_to(schema)
    return schema


def _field_schema(model: Any, name: str, field: FieldInfo) -> dict[str, Any]:
    validators = [
        validator.validator(getattr(model, method))
        for method, validator in model.__validators__.items()
        if isinstance(validator, _FieldValidator) and name in validator.fields
    ]
    schema = _with_metadata(field.annotation, [*field.metadata, *validators])
    if field.default_factory is not None:
        factory = {"default_factory": field.default_factory, "default_factory_takes_data": False}
        schema = {"type": "default", "schema": schema, **factory}
    elif not field.is_required():
        schema = {"type": "default", "schema": schema, "default": field.default}
    aliases = {"validation_alias": field.alias, "serialization_alias": field.alias} if field.alias else {}
    return {"type": "model-field", "schema": schema, **aliases}


def _with_metadata(annotation: Any, metadata: list[Any]) -> dict[str, Any]:
    """Return the schema of a type with validators and bounds."""
    # A plain validator takes the place of the type.
    replaced = any(isinstance(item, PlainValidator) for item in metadata)
    schema = {"type": "any"} if replaced else _schema(annotation)
    for item in metadata:
        schema = item.applied_to(schema)
    return schema


def _schema(annotation: Any) -> dict[str, Any]:
    """Return the core schema of a type. Raises UnsupportedError for types that are not common in configurations."""
    if annotation is Any:
        return {"type": "any"}
    if isinstance(annotation, type):
        if kind := _PLAIN_TYPES.get(annotation):
            return {"type": kind}
        if isinstance(annotation, _ModelType):
            return core_schema(annotation)
        if annotation is IPv4Address:
            return _IPV4_ADDRESS
    if metadata := getattr(annotation, "__metadata__", ()):
        return _with_metadata(annotation.__origin__, list(_flat(metadata)))
    origin = UnionType if isinstance(annotation, UnionType) else getattr(annotation, "__origin__", None)
    match origin, getattr(annotation, "__args__", ()):
        case builtins.tuple, (item, builtins.Ellipsis):
            return {"type": "tuple", "items_schema": [_schema(item)], "variadic_item_index": 0}
        case builtins.list, (item,):
            return {"type": "list", "items_schema": _schema(item)}
        case builtins.dict, (key, value):
            return {"type": "dict", "keys_schema": _schema(key), "values_schema": _schema(value)}
        case typing.Literal, values:
            return {"type": "literal", "expected": list(values)}
        case types.UnionType | typing.Union, (item, types.NoneType):
            return {"type": "nullable", "schema": _schema(item)}
    raise UnsupportedError(f"the type {annotation}")


# Strict, as all models of pycni.sdk are. pydantic also accepts numbers for an address if a model is not strict.
_IPV4_ADDRESS = {
    "type": "json-or-python",
    "json_schema": AfterValidator(IPv4Address).applied_to({"type": "str"}),
    "python_schema": {"type": "is-instance", "cls": IPv4Address},
    "serialization": {"type": "to-string", "when_used": "json-unless-none"},
}
