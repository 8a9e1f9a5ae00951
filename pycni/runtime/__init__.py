"""The runtime side of CNI: network configurations, plugin execution, and the attachment cache.

It does what the Go library libcni does for container runtimes.

    from pycni.runtime import Runtime, RuntimeConf, find_network

    network = find_network("/etc/cni/net.d", "mynet")
    runtime = Runtime(["/opt/cni/bin"])
    result = runtime.add_network_list(network, RuntimeConf("c1", "/run/netns/c1"))
"""

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
