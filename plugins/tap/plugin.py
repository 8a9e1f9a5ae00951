"""tap: give a container a tap device, whose frames a process such as QEMU reads and writes.

container
eth0 (tap) ── /dev/net/tun ── qemu
"""

from pycni.sdk import Attachment, Field, Link, LinkPlugin, LinkSettings, MacConf, Network, OptionalIfname, Tap

_INVALID_ID = 0xFFFFFFFF  # the kernel's value for no user and no group


class TapConfig(MacConf):
    """Configuration of tap. README.md describes the options."""

    multi_queue: bool = False
    mtu: int = Field(0, ge=0, lt=1 << 31)
    owner: int | None = Field(None, ge=0, lt=_INVALID_ID)
    group: int | None = Field(None, ge=0, lt=_INVALID_ID)
    selinux_context: str = ""
    bridge: OptionalIfname = ""


class TapPlugin(LinkPlugin[TapConfig]):
    """The tap plugin. The tap is persistent, and a port of a bridge in the container if `bridge` is set."""

    config = TapConfig
    cni_args = ("MAC",)
    kind = "tun"

    def create_link(self, cni: Attachment[TapConfig]) -> Link:
        """Create the tap, and make it a port of the bridge. Raise CniError if the bridge is missing."""
        conf, container = cni.config, cni.container
        bridge = container.link(conf.bridge) if conf.bridge else None
        tap = Tap(conf.owner, conf.group, conf.multi_queue, conf.selinux_context)
        link = container.taps.create(cni.ifname, cni.owner, tap, mtu=conf.mtu, mac=conf.requested_mac(cni.args))
        if bridge is not None:
            link.attach_to(bridge)
        return link

    def expected_settings(self, cni: Attachment[TapConfig]) -> LinkSettings:
        """Return the owner, group and number of queues, and the MTU and bridge if they are configured."""
        conf = cni.config
        return {
            "user": conf.owner,
            "group": conf.group,
            "multi_queue": conf.multi_queue,
            "mtu": conf.mtu or None,
            "master": cni.container.link(conf.bridge).index if conf.bridge else None,
        }

    def status(self, cni: Network[TapConfig]) -> None:
        """Raise CniError if IPAM is not available or taps cannot be created."""
        cni.ipam.status()
        cni.host.taps.expect_supported()
