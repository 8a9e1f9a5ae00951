"""ipvlan: give a container an interface that shares the MAC address of a host interface, the master.

container            host
eth0 ─── ipvlan ──── eth1 ── LAN
"""

from typing import Literal

from pycni.sdk import Attachment, CniError, ConfigError, Lease, LinkSettings, MasterConf, MasterLinkPlugin


class IpvlanConfig(MasterConf):
    """Configuration of ipvlan. README.md describes the options."""

    mode: Literal["", "l2", "l3", "l3s"] = ""


class Ipvlan(MasterLinkPlugin[IpvlanConfig]):
    """The ipvlan plugin. In a chain, prevResult can provide the master and the addresses."""

    config = IpvlanConfig
    kind = "ipvlan"
    mtu_limited_by_master = False  # a larger MTU works between containers, and in mode l3 the host fragments

    def link_settings(self, conf: IpvlanConfig) -> LinkSettings:
        """Return the mode."""
        return {"mode": conf.mode or "l2"}

    def master_name(self, cni: Attachment[IpvlanConfig]) -> str:
        """Return `master`, else the only interface of prevResult, else "" for the interface of the default route.

        Raise CniError if prevResult has none or several.
        """
        if cni.config.master or cni.prev_result is None:
            return cni.config.master
        names = [interface.name for interface in cni.prev_result.interfaces]
        if len(names) != 1 or not names[0]:
            raise CniError(
                "chained master failure. PrevResult lacks a single named interface",
                details=f"it has {', '.join(names) or 'no interface'}: set master in the configuration",
            )
        return names[0]

    def lease(self, cni: Attachment[IpvlanConfig]) -> Lease:
        """Return the IPAM result, or without `ipam` that of prevResult. Raise ConfigError if there are no addresses."""
        if cni.config.ipam.type:
            return cni.ipam.add()
        if cni.prev_result is None or not cni.prev_result.ips:
            raise ConfigError("ipam.type is missing: an ipvlan interface needs addresses from IPAM or from prevResult")
        return Lease.from_result(cni.prev_result)
