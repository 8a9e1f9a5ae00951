"""macvlan: give a container a link of its own on the network of one of the host's, with a hardware address of its own.

container            host
eth0 ─── macvlan ─── eth1 ── the LAN
"""

from typing import Literal

from pycni.sdk import Attachment, Field, LinkSettings, MacConf, MasterConf, MasterLinkPlugin


class MacvlanConfig(MasterConf, MacConf):
    """The options of macvlan; README.md explains them."""

    mode: Literal["", "bridge", "private", "vepa", "passthru"] = ""
    broadcast_queue: int = Field(0, alias="bcqueuelen", ge=0, lt=1 << 32)


class Macvlan(MasterLinkPlugin[MacvlanConfig]):
    """The plugin: a link on a master, in one of four modes."""

    config = MacvlanConfig
    cni_args = ("MAC",)
    kind = "macvlan"

    def settings(self, conf: MacvlanConfig) -> LinkSettings:
        """Who of those on the same master hear each other, and how many broadcasts may wait for them."""
        return {"mode": conf.mode or "bridge", "broadcast_queue": conf.broadcast_queue or None}

    def mac(self, cni: Attachment[MacvlanConfig]) -> str:
        """Chosen by the kernel unless it is asked for: at random, or with passthru the master's."""
        return cni.config.asked_mac(cni.args)
