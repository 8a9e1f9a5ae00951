"""vlan: give a container the frames of one VLAN (IEEE 802.1Q) that pass a link of the host.

container            host
eth0 ── VLAN 100 ─── eth1 ── the trunk
"""

from collections.abc import Iterator

from pycni.sdk import Attachment, ConfigError, Field, LinkSettings, MasterConf, MasterLinkPlugin, field_validator

_NO_MASTER = '"master" field is required. It specifies the host interface name to create the VLAN for'


class VlanConfig(MasterConf):
    """The options of vlan; README.md explains them."""

    needs_addresses = "a vlan link gets its addresses from IPAM"

    vlan: int = Field(0, alias="vlanId")

    @field_validator("vlan")
    @classmethod
    def _vlan_exists(cls, vlan: int) -> int:
        if not 0 <= vlan <= 4094:
            raise ValueError(f"invalid VLAN ID {vlan} (must be between 0 and 4094)")
        return vlan

    def complaints(self) -> Iterator[str]:
        """Only ADD and CHECK need a master."""
        if not self.master:
            yield f"master: {_NO_MASTER}"


class Vlan(MasterLinkPlugin[VlanConfig]):
    """The plugin: a link on a master, for one VLAN."""

    config = VlanConfig
    kind = "vlan"
    needs_master_up = True

    def settings(self, conf: VlanConfig) -> LinkSettings:
        """Its VLAN."""
        return {"vlan": conf.vlan}

    def master_name(self, cni: Attachment[VlanConfig]) -> str:
        """It must be named: a VLAN is not something that the link of the default route just has."""
        if not cni.config.master:
            raise ConfigError(_NO_MASTER)
        return cni.config.master
