"""The plugins registered in this installation: entry points of the group pycni.plugins, by type."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from pycni.protocol.errors import CniError
from pycni.sdk.config import NetConf
from pycni.sdk.plugin import Plugin
from pycni.sdk.upgrade import is_caused_by_upgrade, upgrade_error

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "pycni.plugins"


def names() -> list[str]:
    """Return the types of all registered plugins, sorted."""
    return list(entries())


def entries() -> dict[str, EntryPoint]:
    """Return the entry points of all registered plugins by type, sorted. This reads a file of each distribution."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, entry)
    return found


def find(name: str) -> EntryPoint | None:
    """Return the entry point of the plugin of this type, or None."""
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)


def load(name: str) -> type[Plugin[Any]]:
    """Return the plugin registered for the type. Raises CniError, naming the package, if it cannot be loaded."""
    entry = find(name)
    if entry is None:
        raise CniError(f'no plugin is registered for type "{name}"')
    return load_entry(entry)


def load_entry(entry: EntryPoint) -> type[Plugin[Any]]:
    """Return the plugin of an entry point. Raises CniError like `load`."""
    package = entry.dist.name if entry.dist else "an unknown package"
    return load_class(entry.value, f'plugin "{entry.name}" of {package}')


def load_class(value: str, who: str) -> type[Plugin[Any]]:
    """Return the plugin class that `value`, as `module:Class`, names.

    Raises CniError if it cannot be imported or is not a plugin, with code 11 if modules of pycni are missing. `who` is
    the subject of the message.
    """
    module, _, attribute = value.partition(":")
    try:
        plugin = getattr(import_module(module), attribute)
    except Exception as error:
        is_missing_module = isinstance(error, ModuleNotFoundError) and is_caused_by_upgrade(error)
        if is_missing_module or module.startswith("pycni_plugins."):
            raise upgrade_error(error) from error
        raise CniError(f"{who} cannot be loaded from {value}: {str(error) or type(error).__name__}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        raise CniError(f"{who} is not a plugin: {value} is not a subclass of pycni.sdk.Plugin")
    if not issubclass(plugin.config, NetConf):
        raise CniError(f"{who} is not a plugin: its config is not a subclass of pycni.sdk.NetConf")
    return plugin
