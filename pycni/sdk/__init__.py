"""What plugin authors import.

    from pycni.sdk import Attachment, NetConf, Plugin, Result

    class MtuConfig(NetConf):
        mtu: int

    class Mtu(Plugin[MtuConfig]):
        config = MtuConfig

        def add(self, cni: Attachment[MtuConfig]) -> Result:
            cni.container.link(cni.ifname).set(mtu=cni.config.mtu)
            return cni.required_prev_result

        def check(self, cni: Attachment[MtuConfig]) -> None:
            cni.container.link(cni.ifname).expect(mtu=cni.config.mtu)

        def delete(self, cni: Attachment[MtuConfig]) -> None:
            pass  # the MTU goes with the interface

Registered by `[project.entry-points."pycni.plugins"]  mtu = "acme_mtu:Mtu"`, it is installed by `pycni install`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pycni.kernel.arp import probing
    from pycni.kernel.datagrams import Datagram, DatagramSocket
    from pycni.kernel.devices import Device
    from pycni.kernel.firewall import Firewall
    from pycni.kernel.home import Home
    from pycni.kernel.isolation import Fence
    from pycni.kernel.links import Link
    from pycni.kernel.namespace import Namespace
    from pycni.kernel.owner import Owner
    from pycni.kernel.patience import waiting
    from pycni.kernel.portmappings import HostPorts, PortMapping
    from pycni.kernel.ratelimit import RateLimit
    from pycni.kernel.readdress import RouteChange
    from pycni.kernel.routes import SourceRoute
    from pycni.kernel.taps import Tap
    from pycni.protocol.errors import CniError, Code, ConfigError
    from pycni.protocol.result import Dns, Interface, IpConfig, Result, Route
    from pycni.sdk.attachment import Attachment, Network
    from pycni.sdk.config import (
        Address,
        Cidr,
        DnsField,
        Ifname,
        Ipam,
        Mac,
        MacSource,
        MasqBackend,
        Model,
        NetConf,
        OptionalIfname,
        RouteField,
    )
    from pycni.sdk.containerlink import ContainerLink, LinkOnMaster, LinkSettings, MacConf, MasterConf
    from pycni.sdk.delegate import Delegate
    from pycni.sdk.lease import Lease
    from pycni.sdk.plugin import Plugin
    from pycni.sdk.statefile import StateFile
    from pycni.sdk.unixsocket import listening

# Loaded when they are asked for: a runtime that only starts executables never needs pydantic, and plugins without
# links never need pyroute2.
_HOMES = {
    "pycni.kernel.arp": ("probing",),
    "pycni.kernel.datagrams": ("Datagram", "DatagramSocket"),
    "pycni.kernel.devices": ("Device",),
    "pycni.kernel.firewall": ("Firewall",),
    "pycni.kernel.home": ("Home",),
    "pycni.kernel.isolation": ("Fence",),
    "pycni.kernel.links": ("Link",),
    "pycni.kernel.namespace": ("Namespace",),
    "pycni.kernel.patience": ("waiting",),
    "pycni.kernel.portmappings": ("HostPorts", "PortMapping"),
    "pycni.kernel.owner": ("Owner",),
    "pycni.kernel.ratelimit": ("RateLimit",),
    "pycni.kernel.readdress": ("RouteChange",),
    "pycni.kernel.routes": ("SourceRoute",),
    "pycni.kernel.taps": ("Tap",),
    "pycni.protocol.errors": ("CniError", "Code", "ConfigError"),
    "pycni.protocol.result": ("Dns", "Interface", "IpConfig", "Result", "Route"),
    "pycni.sdk.attachment": ("Attachment", "Network"),
    "pycni.sdk.config": (
        *("Address", "Cidr", "DnsField", "Ifname", "Ipam"),
        *("Mac", "MacSource", "MasqBackend", "Model", "NetConf", "OptionalIfname", "RouteField"),
    ),
    "pycni.sdk.containerlink": ("ContainerLink", "LinkOnMaster", "LinkSettings", "MacConf", "MasterConf"),
    "pycni.sdk.delegate": ("Delegate",),
    "pycni.sdk.lease": ("Lease",),
    "pycni.sdk.plugin": ("Plugin",),
    "pycni.sdk.statefile": ("StateFile",),
    "pycni.sdk.unixsocket": ("listening",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


__all__ = [
    "Address",
    "Attachment",
    "Cidr",
    "CniError",
    "Code",
    "ConfigError",
    "ContainerLink",
    "Datagram",
    "DatagramSocket",
    "Delegate",
    "Device",
    "Dns",
    "DnsField",
    "Fence",
    "Firewall",
    "Home",
    "HostPorts",
    "Ifname",
    "Interface",
    "IpConfig",
    "Ipam",
    "Lease",
    "Link",
    "LinkOnMaster",
    "LinkSettings",
    "Mac",
    "MacConf",
    "MacSource",
    "MasqBackend",
    "MasterConf",
    "Model",
    "Namespace",
    "NetConf",
    "Network",
    "OptionalIfname",
    "Owner",
    "Plugin",
    "PortMapping",
    "RateLimit",
    "Result",
    "Route",
    "RouteChange",
    "RouteField",
    "SourceRoute",
    "StateFile",
    "Tap",
    "listening",
    "probing",
    "waiting",
]
