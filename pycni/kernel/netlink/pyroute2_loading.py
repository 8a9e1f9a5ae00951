"""Lazy loading of the package pyroute2, so that messages.py loads its message classes in 25 ms instead of 120.

`import pyroute2` loads 160 modules and asyncio, which netlink messages do not need. This module puts the package into
sys.modules without running it. It is run when another attribute is used, as by `from pyroute2 import IPRoute`.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

NAME = "pyroute2"


class _Unloaded(ModuleType):
    """The package before any attribute other than a submodule is used."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        if name.startswith("__") or find_spec(f"{NAME}.{name}") or spec is None or spec.loader is None:
            raise AttributeError(name)  # a submodule: the import system finds it
        self.__class__ = ModuleType  # type: ignore[assignment] # now it is an ordinary module
        spec.loader.exec_module(self)
        return getattr(self, name)


def _register_unloaded() -> None:
    """Put the package into sys.modules without running it, unless it is loaded already."""
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is None or spec.submodule_search_locations is None:
        return  # it is loaded, or missing: then the import fails with a reason
    module = _Unloaded(NAME)
    module.__spec__ = spec
    module.__path__ = list(spec.submodule_search_locations)
    module.__file__ = spec.origin
    module.__package__ = NAME
    sys.modules[NAME] = module


_register_unloaded()
