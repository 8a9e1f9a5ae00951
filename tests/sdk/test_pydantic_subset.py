"""Tests of models declared with pydantic_subset.

Each runs in its own process, because pydantic_subset replaces pydantic for all of pycni.sdk.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.sdk import registry
from pycni.sdk.stub import Stub

# Prints the core schema of every model that a plugin can load. Functions and classes are printed as names. Keys that do
# not affect the validation of a strict model are omitted.
SCHEMAS = """
import importlib, json, sys

def plain(value, definitions):
    if isinstance(value, dict):
        if value.get("type") == "definitions":
            return plain(value["schema"], {item["ref"]: item for item in value["definitions"]})
        if value.get("type") == "definition-ref":
            return plain(definitions[value["schema_ref"]], definitions)
        if value.get("type") == "lax-or-strict":
            return plain(value["strict_schema"], definitions)
        unimportant = {"json_schema_input_schema", "metadata", "ref", "serialization"}
        return {key: plain(item, definitions) for key, item in value.items() if key not in unimportant}
    if isinstance(value, list):
        return [plain(item, definitions) for item in value]
    if isinstance(value, (str, int, float, type(None))):
        return value
    name = getattr(value, "__qualname__", None) or repr(value)
    return f"{getattr(value, '__module__', '')}.{name}"

def models(model):
    for one in model.__subclasses__():
        yield one
        yield from models(one)

def core_schema(model):
    if subset:
        return pydantic_subset.core_schema(model)
    model.model_rebuild()
    return model.__pydantic_core_schema__

subset = sys.argv[1] == "subset"
if subset:
    from pycni import pydantic_subset

    pydantic_subset.use()
from pycni.sdk import Model

for name in sys.argv[2:]:
    importlib.import_module(name)
for model in models(Model):
    name = f"{model.__module__}.{model.__name__}"
    try:
        print(json.dumps([name, plain(core_schema(model), {})], sort_keys=True))
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]))
assert ("pydantic" in sys.modules) is not subset
"""

USE = "from pycni import pydantic_subset; pydantic_subset.use()\n"
UNSUPPORTED = {"pycni_plugins.host_device.device_record.DeviceRecord"}  # has a member that is a dataclass


def printed(code: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # so that sets are printed in the same order
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_core_schemas_of_all_models_equal_those_of_pydantic() -> None:
    modules = [entry.value.partition(":")[0] for name in registry.names() if (entry := registry.find(name))]
    modules.append("pycni_plugins.dhcp.lease_store")
    with_pydantic = dict(map(json.loads, printed(SCHEMAS, "pydantic", *modules).splitlines()))
    with_subset = dict(map(json.loads, printed(SCHEMAS, "subset", *modules).splitlines()))
    assert len(with_pydantic) > 40
    assert with_subset.keys() == with_pydantic.keys()
    unsupported = {name for name, schema in with_subset.items() if "UnsupportedError" in schema}
    assert unsupported == UNSUPPORTED
    for name in with_pydantic.keys() - UNSUPPORTED:
        assert with_subset[name] == with_pydantic[name]


def test_tests_of_configurations_pass() -> None:
    """The models in test_config.py are declared with pycni.sdk."""
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    code = f"{USE}import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    assert " passed" in printed(code, *options, str(Path(__file__).with_name("test_config.py")))


BEHAVIOUR = """
import copy
from functools import cached_property
from ipaddress import IPv4Address
from typing import Annotated, Any, ClassVar, Literal, Self
from pycni.sdk import (
    AfterValidator, BeforeValidator, Cidr, ConfigDict, Field, Model, PlainValidator, ValidationError,
    field_validator, model_validator,
)

class Part(Model):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    code: bytes = b""
    host: IPv4Address | None = None
    options: dict[int, bytes] = Field(default_factory=dict)

class Base(Model):
    needed: ClassVar[str] = ""
    name: str

    @field_validator("name", mode="before")
    @classmethod
    def _stripped(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.needed and not self.name:
            raise ValueError(f"name is missing: {self.needed}")
        return self

class Whole(Base):
    needed = "rule 1"
    the_mode: Literal["", "a", "b"] = ""
    size: Annotated[int, Field(ge=1)] | None = Field(None, alias="SIZE", le=9)
    even: Annotated[int, AfterValidator(lambda number: number * 2)] = 1
    word: Annotated[str, BeforeValidator(lambda word: word or "none")] = ""
    net: Cidr | None = None
    any: Annotated[object, PlainValidator(repr)] = None
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    numbers: list[float] = Field(default_factory=list)

    @cached_property
    def double(self) -> str:
        return self.name * 2

def show(value):
    print(repr(value), str(value))

def attempt(do):
    try:
        show(do())
    except ValidationError as error:
        show([(item["type"], item["loc"], item["msg"]) for item in error.errors()])
    except (AttributeError, TypeError) as error:
        print(type(error).__name__)

one = Whole(name=" n ", size=3, net="10.0.0.0/8")
for do in (
    lambda: one,
    lambda: (one.double, one.model_fields_set, dict(one)),
    lambda: one == Whole(name="n", size=3, net="10.0.0.0/8"),
    lambda: one != one.model_copy(update={"size": 4, "unknown": 1}),
    lambda: one.model_copy(update={"size": 4}).model_fields_set,
    lambda: one == Part(),
    lambda: hash(Part()) == hash(Part()),
    lambda: Whole(),
    lambda: Whole(name=""),
    lambda: Whole(name="n", SIZE=10),
    lambda: Whole(name="n", size=0),
    lambda: Whole(name="n", the_mode="c", even="1", word=1, numbers=[1, "x"], part={"code": 1}),
    lambda: Whole.model_validate({"name": "n", "theMode": "a", "even": 2, "word": "", "any": [1]}),
    lambda: Part.model_validate_json('{"code": "YWI=", "host": "10.0.0.1", "options": {"6": "YQ=="}}'),
    lambda: Whole.model_validate_json('{"name": "n", "parts": [{"code": "a", "host": "10.0.0.300", "options": []}]}'),
    lambda: Whole.model_validate_json('{"name": "n", "parts": [{"options": {"x": ""}}]}'),
    lambda: Whole.model_validate_json("["),
    lambda: Whole.model_construct(name=3, SIZE="x", unknown=1),
    lambda: Part(code=b"ab", host=IPv4Address("10.0.0.1"), options={6: b"a"}).model_dump(mode="json", by_alias=True),
    lambda: Part(code=b"ab", host=IPv4Address("10.0.0.1")).model_dump(exclude={"code"}, exclude_none=True),
    lambda: one.model_dump(exclude={"net", "any"}, by_alias=True),
    lambda: Whole(name="n", part=Part(code=b"ab")).model_dump_json(by_alias=True, indent=1, exclude={"any"}),
    lambda: copy.deepcopy(one) == one,
    lambda: one.nothing,
    lambda: setattr(one, "size", 4),
    lambda: delattr(one, "size"),
    lambda: Whole.name,
    lambda: [(name, field.alias, field.is_required()) for name, field in Whole.model_fields.items()],
    lambda: Whole.read({"NAME": "n", "size": 5, "part": {"CODE": "YQ=="}}),
    lambda: Whole.read_leniently({"name": "n", "size": 500, "theMode": "c", "part": {"code": 1, "host": "10.0.0.1"}}),
):
    attempt(do)
"""


def test_models_behave_like_those_of_pydantic() -> None:
    assert printed(USE + BEHAVIOUR).splitlines() == printed(BEHAVIOUR).splitlines()


@pytest.mark.parametrize(
    "body",
    [
        "class A(NetConf):\n    a: int | str = 0",
        "class A(NetConf):\n    a: 'int' = 0",
        "class A(NetConf):\n    a: list[int] = []",
        "class A(NetConf):\n    a: int = Field(0, multiple_of=2)",
        "class A(NetConf):\n    a: str = Field('', ge=2)",
        "class A(NetConf):\n    a: int = Field(gt=1, repr=False)",
        "class A(NetConf):\n    _a: int = 0",
        "class A(NetConf):\n    a = 0",
        "class A(NetConf, frozen=False):\n    a: int = 0",
        "class A(NetConf):\n    model_config = ConfigDict(extra='allow')",
        "class A(NetConf):\n    model_config = ConfigDict(strict=False)",
        "class A(NetConf):\n    model_config = ConfigDict(str_to_lower=True)",
        "class A(NetConf):\n    def model_post_init(self, _): ...",
        "class A(NetConf):\n    def __init__(self, **values): super().__init__(**values)",
        "class A(NetConf, __import__('typing').Generic[T]):\n    a: int = 0",
        "class A(NetConf):\n    @model_validator(mode='before')\n    @classmethod\n    def a(cls, value): return value",
        "class A(NetConf):\n    @model_validator(mode='after')\n    def a(self, info): return self",
        "class A(NetConf):\n    @field_validator('name', mode='wrap')\n    @classmethod\n    def a(cls, v, inner): ...",
        "class A(NetConf):\n    @field_validator('name')\n    @classmethod\n    def a(cls, value, info): ...",
        "class A(NetConf):\n    @field_validator('name')\n    def a(cls, value): return value",
        "class A(NetConf):\n    @field_validator('other')\n    @classmethod\n    def a(cls, value): ...",
        "class A(NetConf):\n    a: Annotated[int, AfterValidator(lambda value, info: value)] = 0",
        "class A(NetConf):\n    a: Annotated[int, 'text'] = 0",
        "class A(NetConf):\n    a_: int = 0",
        "class A(NetConf):\n    ip2if: int = 0",
        "from pydantic import Field",
        "A = NetConf.model_json_schema()",
        "A = NetConf().json()",
        "NetConf().model_copy(deep=True)",
        "import pickle; pickle.dumps(NetConf())",
    ],
)
def test_features_that_only_pydantic_has_are_rejected(body: str) -> None:
    """A plugin that uses such a feature gets pydantic, instead of models that behave differently."""
    names = "AfterValidator, ConfigDict, Field, Model, NetConf, field_validator, model_validator"
    attempt = f"{body}\nif 'A' in globals() and isinstance(A, type): A.model_rebuild()"
    code = f"""
from typing import Annotated, TypeVar
T = TypeVar("T")
from pycni.sdk import {names}
try:
{textwrap.indent(attempt, "    ")}
except pydantic_subset.UnsupportedError as error:
    print(error)
"""
    assert "is not supported without pydantic" in printed(USE + code)


PLUGIN = """
from pathlib import Path
from pycni.sdk import Attachment, {sdk}NetConf, Plugin, Result
{head}

class Conf(NetConf):
    size: int = Field({field})

class Odd(Plugin[Conf]):
    config = Conf

    def add(self, cni: Attachment[Conf]) -> Result:
        file = Path(cni.request.netns + ".made")
        cni.journal.change("create the file", lambda: file.touch(exist_ok=False), file.unlink)
        {add}
        return cni.required_prev_result

    def check(self, cni: Attachment[Conf]) -> None: ...

    def delete(self, cni: Attachment[Conf]) -> None: ...
"""
IMPORTS = PLUGIN.format(sdk="", head="from pydantic import Field", field="1, multiple_of=2", add="")
IN_ADD = PLUGIN.format(sdk="Field, ", head="", field="1", add="print(cni.config.model_json_schema())")


@pytest.mark.parametrize("source", [IMPORTS, IN_ADD], ids=["loading", "in ADD"])
def test_plugin_that_needs_pydantic_is_restarted_with_it(tmp_path: Path, source: str) -> None:
    """The stub of the plugin says that it works without. The changes of the first attempt are rolled back."""
    (tmp_path / "odd.py").write_text(source)
    some = installation.registered_stubs(["loopback"])[0]
    script = tmp_path / "script"
    stub = Stub("odd", "odd:Odd", some.versions, some.interpreter, (*some.path, str(tmp_path)), needs_pydantic=False)
    script.write_text(stub.script())
    script.chmod(0o755)
    result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]}
    config = {"cniVersion": "1.0.0", "name": "net", "type": "odd", "size": 4, "prevResult": result}
    netns = tmp_path / "netns"
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "id", "CNI_IFNAME": "eth0", "CNI_NETNS": str(netns)}
    done = subprocess.run(
        [script],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"CNI_PATH": str(tmp_path)},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["interfaces"] == [{"name": "eth0"}]
    assert netns.with_suffix(".made").exists()
    assert "UnsupportedError" not in done.stderr
