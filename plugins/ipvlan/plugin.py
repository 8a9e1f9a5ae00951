"""ipvlan: give a container a link of its own on the network of one of the host's, under the same hardware address.

container            host
eth0 ─── ipvlan ──── eth1 ── the LAN
"""

from typing import Literal

from pycni.sdk import Attachment, CniError, ConfigError, Lease, LinkSettings, MasterConf, MasterLinkPlugin


class IpvlanConfig(MasterConf):
    """The options of ipvlan; README.md explains them."""

    mode: Literal["", "l2", "l3", "l3s"] = ""


class Ipvlan(MasterLinkPlugin[IpvlanConfig]):
    """The plugin: a link on a master; an earlier plugin of the chain may have found both master and addresses."""

    config = IpvlanConfig
    kind = "ipvlan"
    fits_master = False  # a larger one is for containers among themselves, and in mode l3 the host makes fragments

    def settings(self, conf: IpvlanConfig) -> LinkSettings:
        """Who decides where a frame goes: switch by switch, or the routes of the host."""
        return {"mode": conf.mode or "l2"}

    def master_name(self, cni: Attachment[IpvlanConfig]) -> str:
        """Named by the configuration, or the one interface of the previous plugin, or that of the default route."""
        if cni.config.master or cni.prev_result is None:
            return cni.config.master
        names = [interface.name for interface in cni.prev_result.interfaces]
        if len(names) != 1 or not names[0]:
            raise CniError(
                "chained master failure. PrevResult lacks a single named interface",
                details=f"its interfaces are {', '.join(names) or 'none'}: name the master in the configuration",
            )
        return names[0]

    def lease(self, cni: Attachment[IpvlanConfig]) -> Lease:
        """From IPAM; without one, what the previous plugin has found."""
        if cni.config.ipam.type:
            return cni.ipam.add()
        if cni.prev_result is None or not cni.prev_result.ips:
            raise ConfigError("ipam.type is missing: an ipvlan link needs addresses, from IPAM or from prevResult")
        return Lease.of(cni.prev_result)
