"""Which plugin answers to which type: the entry points of the group pycni.plugins, ours and everybody's."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from pycni.protocol.errors import CniError
from pycni.sdk.config import NetConf
from pycni.sdk.plugin import Plugin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "pycni.plugins"


def names() -> list[str]:
    """The types of all registered plugins, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def find(name: str) -> EntryPoint | None:
    """The entry point of the type, or None."""
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)


def load(name: str) -> type[Plugin[Any]]:
    """The plugin registered for the type. Raises CniError that names the package at fault."""
    entry = find(name)
    if entry is None:
        raise CniError(f'no plugin is registered for type "{name}"')
    package = entry.dist.name if entry.dist else "an unknown package"
    return load_class(entry.value, f'plugin "{name}" of {package}')


def load_class(value: str, who: str) -> type[Plugin[Any]]:
    """The plugin class that `module:Class` names. Raises CniError that says why it is none."""
    module, _, attribute = value.partition(":")
    try:
        plugin = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CniError(f"{who} cannot be loaded from {value}: {error}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        raise CniError(f"{who} is no plugin: {value} is not a subclass of pycni.sdk.Plugin")
    if not issubclass(plugin.config, NetConf):
        raise CniError(f"{who} is no plugin: its config is not a subclass of pycni.sdk.NetConf")
    return plugin
