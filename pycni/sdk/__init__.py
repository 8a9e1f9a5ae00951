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
    from pycni.kernel.firewall.isolation import BridgeIsolation
    from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping
    from pycni.kernel.firewall.settings import Firewall
    from pycni.kernel.link.arp import probing
    from pycni.kernel.link.datagrams import Datagram, DatagramSocket
    from pycni.kernel.link.devices import Device
    from pycni.kernel.link.links import Link
    from pycni.kernel.link.rate_limit import RateLimit
    from pycni.kernel.link.readdress import RouteChange
    from pycni.kernel.link.routes import SourceRoute
    from pycni.kernel.link.saved_link import SavedLink
    from pycni.kernel.link.taps import Tap
    from pycni.kernel.namespace import Namespace
    from pycni.kernel.owner import Owner
    from pycni.kernel.scheduling import yield_turn
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
    from pycni.sdk.delegate import Delegate
    from pycni.sdk.lease import Lease
    from pycni.sdk.link_plugin import LinkPlugin, LinkSettings, MacConf, MasterConf, MasterLinkPlugin
    from pycni.sdk.models import (
        AfterValidator,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        ValidationError,
        field_validator,
        model_validator,
    )
    from pycni.sdk.plugin import Plugin
    from pycni.sdk.state_file import StateFile
    from pycni.sdk.unix_socket import unix_listener

# Loaded when they are asked for: a runtime that only starts executables never needs pydantic, and plugins without
# links never need pyroute2.
_HOMES = {
    "pycni.kernel.link.arp": ("probing",),
    "pycni.kernel.link.datagrams": ("Datagram", "DatagramSocket"),
    "pycni.kernel.link.devices": ("Device",),
    "pycni.kernel.firewall.settings": ("Firewall",),
    "pycni.kernel.link.saved_link": ("SavedLink",),
    "pycni.kernel.firewall.isolation": ("BridgeIsolation",),
    "pycni.kernel.link.links": ("Link",),
    "pycni.kernel.namespace": ("Namespace",),
    "pycni.kernel.scheduling": ("yield_turn",),
    "pycni.kernel.firewall.port_mappings": ("HostPorts", "PortMapping"),
    "pycni.kernel.owner": ("Owner",),
    "pycni.kernel.link.rate_limit": ("RateLimit",),
    "pycni.kernel.link.readdress": ("RouteChange",),
    "pycni.kernel.link.routes": ("SourceRoute",),
    "pycni.kernel.link.taps": ("Tap",),
    "pycni.protocol.errors": ("CniError", "Code", "ConfigError"),
    "pycni.protocol.result": ("Dns", "Interface", "IpConfig", "Result", "Route"),
    "pycni.sdk.attachment": ("Attachment", "Network"),
    "pycni.sdk.config": (
        *("Address", "Cidr", "DnsField", "Ifname", "Ipam"),
        *("Mac", "MacSource", "MasqBackend", "Model", "NetConf", "OptionalIfname", "RouteField"),
    ),
    "pycni.sdk.link_plugin": ("LinkPlugin", "MasterLinkPlugin", "LinkSettings", "MacConf", "MasterConf"),
    "pycni.sdk.delegate": ("Delegate",),
    "pycni.sdk.lease": ("Lease",),
    "pycni.sdk.models": (
        *("AfterValidator", "BeforeValidator", "ConfigDict", "Field", "PlainValidator", "ValidationError"),
        *("field_validator", "model_validator"),
    ),
    "pycni.sdk.plugin": ("Plugin",),
    "pycni.sdk.state_file": ("StateFile",),
    "pycni.sdk.unix_socket": ("unix_listener",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


__all__ = [
    "Address",
    "AfterValidator",
    "Attachment",
    "BeforeValidator",
    "BridgeIsolation",
    "Cidr",
    "CniError",
    "Code",
    "ConfigDict",
    "ConfigError",
    "Datagram",
    "DatagramSocket",
    "Delegate",
    "Device",
    "Dns",
    "DnsField",
    "Field",
    "Firewall",
    "HostPorts",
    "Ifname",
    "Interface",
    "IpConfig",
    "Ipam",
    "Lease",
    "Link",
    "LinkPlugin",
    "LinkSettings",
    "Mac",
    "MacConf",
    "MacSource",
    "MasqBackend",
    "MasterConf",
    "MasterLinkPlugin",
    "Model",
    "Namespace",
    "NetConf",
    "Network",
    "OptionalIfname",
    "Owner",
    "PlainValidator",
    "Plugin",
    "PortMapping",
    "RateLimit",
    "Result",
    "Route",
    "RouteChange",
    "RouteField",
    "SavedLink",
    "SourceRoute",
    "StateFile",
    "Tap",
    "ValidationError",
    "field_validator",
    "model_validator",
    "probing",
    "unix_listener",
    "yield_turn",
]
