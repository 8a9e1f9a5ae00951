"""Modules that load when something in them is first used, for processes that live for one call.

Most calls need one firewall out of three, start no process, and never ask which distributions are installed; but who
might need any of it says so at the top of its file, as is usual. A resident process loads everything.

(A second `import x` of what waits makes it load; `from package import x` does not.)
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

_KERNEL = "pycni.kernel"
_MODULES = {
    "subprocess",
    *(f"{_KERNEL}.{name}" for name in ("conntrack", "firewalld", "forward", "hostports", "isolation", "masquerade")),
    *(f"{_KERNEL}.{name}" for name in ("containerlink", "firewall", "moves", "qdiscs", "ratelimit", "readdress")),
    *(f"{_KERNEL}.{name}" for name in ("taps", "vrf")),
    *(f"{_KERNEL}.iptables.{name}" for name in ("forward", "hostports", "isolation", "masquerade", "restore")),
    *(f"{_KERNEL}.nftables.{name}" for name in ("cni_hostport", "forward", "hostports", "isolation", "masquerade")),
    *(f"{_KERNEL}.nftables.{name}" for name in ("portisolation", "register", "spoofcheck")),
}
_METADATA = "importlib.metadata"


class _Finder:
    """Finds the modules that can wait."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _MODULES:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


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


def defer() -> None:
    """From here on these modules wait."""
    sys.meta_path.insert(0, _Finder)
    sys.modules.setdefault(_METADATA, _Metadata(_METADATA))
