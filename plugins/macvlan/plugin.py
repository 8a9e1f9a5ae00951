"""macvlan: give a container an interface with its own MAC address on the network of a host interface, the master.

container            host
eth0 ─── macvlan ─── eth1 ── LAN
"""

from typing import Literal

from pycni.sdk import Attachment, Field, LinkSettings, MacConf, MasterConf, MasterLinkPlugin


class MacvlanConfig(MasterConf, MacConf):
    """Configuration of macvlan. README.md describes the options."""

    mode: Literal["", "bridge", "private", "vepa", "passthru"] = ""
    broadcast_queue: int = Field(0, alias="bcqueuelen", ge=0, lt=1 << 32)


class Macvlan(MasterLinkPlugin[MacvlanConfig]):
    """The macvlan plugin."""

    config = MacvlanConfig
    cni_args = ("MAC",)
    kind = "macvlan"

    def link_settings(self, conf: MacvlanConfig) -> LinkSettings:
        """Return the mode, and the length of the broadcast queue if it is configured."""
        return {"mode": conf.mode or "bridge", "broadcast_queue": conf.broadcast_queue or None}

    def mac(self, cni: Attachment[MacvlanConfig]) -> str:
        """Return the requested MAC address, or "" to let the kernel choose: random, or the master's with passthru."""
        return cni.config.requested_mac(cni.args)
