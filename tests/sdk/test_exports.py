"""Tests of the public API as seen by `from pycni.sdk import …`, `dir()` and `help()`."""

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pycni.sdk
import pycni.testing

WITH_EXAMPLE = [
    *("Attachment", "CniError", "Delegate", "Dns", "Interface", "IpConfig", "Lease", "Link", "LinkPlugin"),
    *("MasterLinkPlugin", "Model", "NetConf", "Network", "Plugin", "Result", "Route", "StateFile"),
]
EXPORTS = [(module, name) for module in (pycni.sdk, pycni.testing) for name in module.__all__]
CLASSES = [getattr(module, name) for module, name in EXPORTS if inspect.isclass(getattr(module, name))]


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the methods and properties that a class defines or inherits from a class of pycni, with their names."""
    for base in cls.__mro__:
        if not base.__module__.startswith("pycni."):
            continue
        for name, member in vars(base).items():
            is_method = inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)
            if not name.startswith("_") and (is_method or type(member).__name__ == "cached_property"):
                yield f"{base.__qualname__}.{name}", member


def is_defined_by_pycni(obj: object) -> bool:
    """Return whether `obj` is a class, function or module of pycni, not an alias of a type or something of pydantic."""
    is_definition = inspect.isclass(obj) or inspect.isroutine(obj)
    return inspect.ismodule(obj) or (is_definition and str(obj.__module__).startswith("pycni."))


def test_public_names_are_importable_and_other_names_are_not() -> None:
    for name in pycni.sdk.__all__:
        assert getattr(pycni.sdk, name) is not None
    assert sorted(pycni.sdk.__all__) == pycni.sdk.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = pycni.sdk.Nonsense


def test_type_checkers_see_the_names_that_can_be_imported() -> None:
    """The imports under TYPE_CHECKING and the table of modules list the same names and modules."""
    tree = ast.parse(Path(pycni.sdk.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports: dict[str, list[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert [alias.name for alias in node.names] == [alias.asname for alias in node.names]
        imports.setdefault(str(node.module), []).extend(alias.name for alias in node.names)
    assert {module: sorted(names) for module, names in imports.items()} == {
        module: sorted(names) for module, names in pycni.sdk._MODULES.items()
    }


@pytest.mark.parametrize("module", [pycni.sdk, pycni.testing], ids=lambda module: module.__name__)
def test_dir_lists_every_exported_name(module: ModuleType) -> None:
    assert set(module.__all__) <= set(dir(module))
    assert not [name for name in dir(pycni.sdk) if name not in pycni.sdk.__all__ and not name.startswith("__")]


def test_dir_loads_nothing() -> None:
    script = "import sys, pycni.sdk; dir(pycni.sdk); print(*(name for name in sys.modules if name.startswith('pycni')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pycni", "pycni.sdk"]


@pytest.mark.parametrize(("module", "name"), EXPORTS, ids=lambda value: getattr(value, "__name__", value))
def test_every_exported_name_is_documented(module: ModuleType, name: str) -> None:
    """Aliases of types are described only in the docstring of the module."""
    exported = getattr(module, name)
    if is_defined_by_pycni(exported):
        documented = inspect.getdoc(exported)
        assert documented
        assert not documented.startswith(f"{name}("), "made by dataclass or NamedTuple"
    assert re.search(rf"(?<!\.)\b{name}\b", module.__doc__ or ""), "missing in the docstring of the module"


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_main_classes_have_an_example(name: str) -> None:
    assert "\n    " in (inspect.getdoc(getattr(pycni.sdk, name)) or ""), "no indented block"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_has_a_docstring(cls: type) -> None:
    assert [name for name, member in public_methods(cls) if not inspect.getdoc(member)] == []


def test_help_describes_every_class_and_function() -> None:
    text = pydoc.plain(pydoc.render_doc(pycni.sdk))
    for name in pycni.sdk.__all__:
        if inspect.isclass(getattr(pycni.sdk, name)):
            assert f"class {name}(" in text or f"class {name}\n" in text or f"{name} = class " in text
        elif inspect.isroutine(getattr(pycni.sdk, name)):
            assert f"    {name}(" in text
