"""Modules that load, and methods that are compiled, when they are first used, for processes that live for one call.

Most calls need one firewall out of three, start no process, and never ask which distributions are installed; but who
might need any of it says so at the top of its file, as is usual. A resident process loads everything.

(A second `import x` of what waits makes it load; `from package import x` does not.)
"""

import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

_LINK, _FIREWALL = "pycni.kernel.link", "pycni.kernel.firewall"
_MODULES = {
    "secrets",
    "subprocess",
    "pycni.kernel.netlink.messages",
    "pycni.kernel.netlink.tc_messages",
    *(f"{_LINK}.{name}" for name in ("address_change", "addresses", "bridges", "creation", "link_moves", "rate_limit")),
    *(f"{_LINK}.{name}" for name in ("routes", "rules", "shaping", "taps", "vrfs")),
    *(f"{_FIREWALL}.{name}" for name in ("conntrack", "forward", "hostports", "isolation", "masquerade", "settings")),
    *(f"{_FIREWALL}.firewalld.{name}" for name in ("dbus", "zones")),
    *(
        f"{_FIREWALL}.iptables.{name}"
        for name in ("forward", "hostports", "isolation", "masquerade", "restore", "translations")
    ),
    *(f"{_FIREWALL}.nftables.{name}" for name in ("address_owners", "forward", "hostports", "isolation", "masquerade")),
    *(f"{_FIREWALL}.nftables.{name}" for name in ("go_hostports", "go_spoof_check", "port_isolation", "spoof_check")),
}
_PATIENT = {"pycni", "pycni_plugins", "pydantic", "annotated_types"}
_METADATA = "importlib.metadata"
_CORE_SCHEMA = "pydantic_core.core_schema"


class _Finder:
    """Finds the modules that can wait."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _MODULES and name != _CORE_SCHEMA:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            # Not derived from importlib.abc.Loader: to load that takes longer than most of what waits here.
            own: Any = _WithRecords if name == _CORE_SCHEMA else LazyLoader
            spec.loader = own(spec.loader)
        return spec


class _WithRecords:
    """Loads a module whose eighty TypedDicts are for type checkers alone: to make them would take 10 to 15 ms."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import typing_extensions

        homes: list[Any] = [typing, typing_extensions]
        real = [home.TypedDict for home in homes]
        try:
            for home in homes:
                home.TypedDict = _Record
            self._loader.exec_module(module)
        finally:
            for home, of_home in zip(homes, real, strict=True):
                home.TypedDict = of_home


class _Record(dict[str, Any]):
    """Stands in for TypedDict: what is derived from it makes dictionaries, as there."""

    def __init_subclass__(cls, *, total: bool = True) -> None:
        """Nothing is remembered of the fields."""

    def __new__(cls, **fields: Any) -> Any:
        return fields


class _Metadata(ModuleType):
    """importlib.metadata before anybody has used it: pydantic imports a function of it that it then does not call."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real_metadata(), name)

    @staticmethod
    def entry_points(**params: Any) -> Any:
        return _real_metadata().entry_points(**params)


def _real_metadata() -> ModuleType:
    if isinstance(sys.modules.get(_METADATA), _Metadata):
        del sys.modules[_METADATA]
    return import_module(_METADATA)


_compiled: Callable[..., Any] | None = getattr(dataclasses, "_create_fn", None)  # of Python 3.11 and 3.12


def _compiled_when_called(name: str, arguments: Any, body: Any, **how: Any) -> Any:
    """A method that dataclasses makes, of a module that is known to be content with it.

    They are compiled one by one, a hundred and more of them, and few are ever called: that would take 14 of 95 ms.
    """
    assert _compiled is not None
    if str((how.get("globals") or {}).get("__name__", "")).partition(".")[0] not in _PATIENT:
        return _compiled(name, arguments, body, **how)
    made: list[Any] = []

    def method(*values: Any, **named: Any) -> Any:
        if not made:
            made.append(_compiled(name, arguments, body, **how))
        return made[0](*values, **named)

    method.__name__ = name
    return method


def defer() -> None:
    """From here on these modules, and methods, wait."""
    sys.meta_path.insert(0, _Finder)
    sys.modules.setdefault(_METADATA, _Metadata(_METADATA))
    if _compiled is not None:
        dataclasses._create_fn = _compiled_when_called  # type: ignore[attr-defined] # noqa: SLF001
