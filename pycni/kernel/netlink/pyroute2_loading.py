"""pyroute2 without its face: so that messages.py loads its message classes alone, in 25 ms instead of 120.

`import pyroute2` loads 160 modules of its own and asyncio, none of which netlink messages need. Here the package is
put in place unloaded; whoever asks it for anything, such as a plugin that does `from pyroute2 import IPRoute`, gets it.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

NAME = "pyroute2"


class _Unloaded(ModuleType):
    """The package before anybody has asked it for anything but its submodules."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        if name.startswith("__") or find_spec(f"{NAME}.{name}") or spec is None or spec.loader is None:
            raise AttributeError(name)  # a submodule: the import system goes on to find it
        self.__class__ = ModuleType  # type: ignore[assignment] # from here on it is an ordinary module
        spec.loader.exec_module(self)
        return getattr(self, name)


def _leave_unloaded() -> None:
    """Put the package into place without loading it, unless it is loaded already."""
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is None or spec.submodule_search_locations is None:
        return  # it is there, or it is not to be had, and the import will say why
    module = _Unloaded(NAME)
    module.__spec__ = spec
    module.__path__ = list(spec.submodule_search_locations)
    module.__file__ = spec.origin
    module.__package__ = NAME
    sys.modules[NAME] = module


_leave_unloaded()
