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

from typing import TYPE_CHECKING

from pycni.protocol.errors import CniError, Code, ConfigError
from pycni.protocol.result import Dns, Interface, IpConfig, Result, Route
from pycni.sdk.attachment import Attachment, Network
from pycni.sdk.config import Address, Cidr, DnsField, Ifname, Ipam, Mac, Model, NetConf, RouteField
from pycni.sdk.lease import Lease
from pycni.sdk.plugin import Plugin

if TYPE_CHECKING:  # it loads pyroute2, which plugins without links never need
    from pycni.kernel.links import Link
    from pycni.kernel.namespace import Namespace


def __getattr__(name: str) -> object:
    if name == "Link":
        from pycni.kernel.links import Link

        return Link
    if name == "Namespace":
        from pycni.kernel.namespace import Namespace

        return Namespace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Address",
    "Attachment",
    "Cidr",
    "CniError",
    "Code",
    "ConfigError",
    "Dns",
    "DnsField",
    "Ifname",
    "Interface",
    "IpConfig",
    "Ipam",
    "Lease",
    "Link",
    "Mac",
    "Model",
    "Namespace",
    "NetConf",
    "Network",
    "Plugin",
    "Result",
    "Route",
    "RouteField",
]
