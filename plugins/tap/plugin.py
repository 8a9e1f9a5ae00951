"""tap: give a container a link whose frames a process in it reads and writes, such as a virtual machine's.

container
eth0 (tap) ── /dev/net/tun ── qemu
"""

from pycni.sdk import Attachment, Field, Link, LinkPlugin, LinkSettings, MacConf, Network, OptionalIfname, Tap

_NOBODY = 0xFFFFFFFF  # no user and no group, for the kernel


class TapConfig(MacConf):
    """The options of tap; README.md explains them."""

    multi_queue: bool = False
    mtu: int = Field(0, ge=0, lt=1 << 31)
    owner: int | None = Field(None, ge=0, lt=_NOBODY)
    group: int | None = Field(None, ge=0, lt=_NOBODY)
    selinux_context: str = ""
    bridge: OptionalIfname = ""


class TapPlugin(LinkPlugin[TapConfig]):
    """The plugin: a tap that stays whether or not somebody opens it, in a bridge of the container if one is named."""

    config = TapConfig
    cni_args = ("MAC",)
    kind = "tun"

    def create_link(self, cni: Attachment[TapConfig]) -> Link:
        """Make it, and plug it into the bridge."""
        conf, container = cni.config, cni.container
        bridge = container.link(conf.bridge) if conf.bridge else None
        tap = Tap(conf.owner, conf.group, conf.multi_queue, conf.selinux_context)
        link = container.create_tap(cni.ifname, cni.owner, tap, mtu=conf.mtu, mac=conf.asked_mac(cni.args))
        if bridge is not None:
            link.plug_into(bridge, hairpin=False, isolated=False)
        return link

    def expected(self, cni: Attachment[TapConfig]) -> LinkSettings:
        """Who may open it, and how; its MTU, and its bridge."""
        conf = cni.config
        return {
            "user": conf.owner,
            "group": conf.group,
            "multi_queue": conf.multi_queue,
            "mtu": conf.mtu or None,
            "master": cni.container.link(conf.bridge).index if conf.bridge else None,
        }

    def status(self, cni: Network[TapConfig]) -> None:
        """Ready if IPAM is, and taps can be made."""
        cni.ipam.status()
        cni.host.expect_taps()
