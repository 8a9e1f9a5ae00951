"""What a container runtime needs to speak CNI: configurations, the calls of their plugins, and the cache (libcni)."""

from pycni.runtime.cache import Cache, CachedAttachment, UnreadableEntryError
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.discovery import all_networks, find_network, load, load_list, load_single
from pycni.runtime.errors import CollectedError, PluginError
from pycni.runtime.parameters import AttachmentId, RuntimeConf
from pycni.runtime.runtime import Runtime

__all__ = [
    "AttachmentId",
    "Cache",
    "CachedAttachment",
    "CollectedError",
    "NetworkConfig",
    "PluginConfig",
    "PluginError",
    "Runtime",
    "RuntimeConf",
    "UnreadableEntryError",
    "all_networks",
    "find_network",
    "load",
    "load_list",
    "load_single",
]
