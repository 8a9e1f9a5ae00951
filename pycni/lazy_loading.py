"""Lazy loading for processes that answer one call: modules are executed, and methods compiled, at their first use.

Most calls need one of three firewalls, start no process and write no log. Modules still import whatever they may need
at the top of the file. A server does not use this module: it loads everything before it is ready.

Three mechanisms:

- LazyLoader of importlib, for modules of pycni that are imported with `import x` or `from package import x`.
- Stand-ins in `sys.modules`, for modules of the standard library; `import x` gets the stand-in.
- Methods of dataclasses of known packages are compiled when they are first called.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

_LINK, _FIREWALL = "pycni.kernel.link", "pycni.kernel.firewall"
_MODULES = {
    "pycni.kernel.netlink.messages",
    "pycni.kernel.netlink.tc_messages",
    *(f"{_LINK}.{name}" for name in ("address_change", "addresses", "bridges", "creation", "link_moves", "rate_limit")),
    *(f"{_LINK}.{name}" for name in ("routes", "rules", "shaping", "taps", "vrfs")),
    *(f"{_FIREWALL}.{name}" for name in ("conntrack", "forward_rules", "host_ports", "isolation", "masquerade")),
    f"{_FIREWALL}.spoof_check",
    *(f"{_FIREWALL}.firewalld.{name}" for name in ("dbus", "zones")),
    *(f"{_FIREWALL}.iptables.{name}" for name in ("dnat_chain", "forward_rules", "host_ports", "isolation")),
    *(f"{_FIREWALL}.iptables.{name}" for name in ("masquerade", "restore", "translations")),
    *(f"{_FIREWALL}.nftables.{name}" for name in ("address_owners", "forward_rules", "isolation", "masquerade")),
    *(f"{_FIREWALL}.nftables.{name}" for name in ("go_host_ports", "go_spoof_check", "port_isolation", "spoof_check")),
    f"{_FIREWALL}.nftables.host_ports.backend",
}
_STANDARD_LIBRARY = ("copy", "ctypes", "inspect", "secrets", "shlex", "subprocess")
_METADATA = "importlib.metadata"
_CORE_SCHEMA = "pydantic_core.core_schema"
_WITH_LAZY_METHODS = {"pycni", "pycni_plugins", "pydantic", "annotated_types"}


def defer() -> None:
    """Load these modules and compile these methods lazily from now on."""
    sys.meta_path.insert(0, _Finder)
    for name in _STANDARD_LIBRARY:
        sys.modules.setdefault(name, StandIn(name))
    sys.modules.setdefault(_METADATA, _MetadataStandIn(_METADATA))
    import dataclasses

    # Python 3.11 and 3.12 have this function.
    if compile_method := getattr(dataclasses, "_create_fn", None):
        dataclasses._create_fn = _lazily(compile_method)  # type: ignore[attr-defined] # noqa: SLF001


class _Finder:
    """Finds the modules that are executed at their first use."""

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


class StandIn(ModuleType):
    """An entry of `sys.modules` that loads the real module when an attribute is used, in whichever module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """Return the real module, which takes the place of this one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)


class _MetadataStandIn(StandIn):
    """The stand-in for importlib.metadata: pydantic imports entry_points by name, and does not call it."""

    def entry_points(self, **params: Any) -> Any:
        """Load the module and call its function."""
        return self.load().entry_points(**params)


class _WithRecords:
    """Loads pydantic_core.core_schema without creating its eighty TypedDicts, which takes 10 to 15 ms.

    They are for type checkers. The functions in that module call them as one calls `dict`.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import typing

        import typing_extensions

        modules: list[Any] = [typing, typing_extensions]
        real = [module.TypedDict for module in modules]
        try:
            for typing_module in modules:
                typing_module.TypedDict = _Record
            self._loader.exec_module(module)
        finally:
            for typing_module, its_own in zip(modules, real, strict=True):
                typing_module.TypedDict = its_own


class _Record(dict[str, Any]):
    """Replaces TypedDict: calling a class derived from it returns a dict, as there."""

    def __init_subclass__(cls, *, total: bool = True) -> None:
        """Ignore the fields."""

    def __new__(cls, **fields: Any) -> Any:
        return fields


def _lazily(compile_method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement for the function with which dataclasses compiles the methods that it generates.

    A one-shot process defines more than a hundred of them and calls few: compiling all takes 14 ms.
    """

    def compile_when_called(name: str, arguments: Any, body: Any, **how: Any) -> Any:
        if str((how.get("globals") or {}).get("__name__", "")).partition(".")[0] not in _WITH_LAZY_METHODS:
            return compile_method(name, arguments, body, **how)
        compiled: list[Any] = []

        def method(*values: Any, **named: Any) -> Any:
            if not compiled:
                compiled.append(compile_method(name, arguments, body, **how))
            return compiled[0](*values, **named)

        method.__name__ = name
        return method

    return compile_when_called
