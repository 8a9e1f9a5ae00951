"""vlan: give a container an IEEE 802.1Q VLAN interface on a host interface, the master.

container            host
eth0 ── VLAN 100 ─── eth1 ── trunk
"""

from collections.abc import Iterator

from pycni.sdk import Attachment, ConfigError, Field, LinkSettings, MasterConf, MasterLinkPlugin, field_validator

_NO_MASTER = '"master" field is required. It specifies the host interface name to create the VLAN for'


class VlanConfig(MasterConf):
    """Configuration of vlan. README.md describes the options."""

    needs_addresses = "a vlan interface gets its addresses from IPAM"

    vlan: int = Field(0, alias="vlanId")

    @field_validator("vlan")
    @classmethod
    def _vlan_id_is_valid(cls, vlan: int) -> int:
        if not 0 <= vlan <= 4094:
            raise ValueError(f"invalid VLAN ID {vlan} (must be between 0 and 4094)")
        return vlan

    def problems(self) -> Iterator[str]:
        """Yield the error for a missing `master`: DEL accepts it, ADD and CHECK do not."""
        if not self.master:
            yield f"master: {_NO_MASTER}"


class Vlan(MasterLinkPlugin[VlanConfig]):
    """The vlan plugin."""

    config = VlanConfig
    kind = "vlan"
    requires_master_up = True

    def link_settings(self, conf: VlanConfig) -> LinkSettings:
        """Return the VLAN id."""
        return {"vlan": conf.vlan}

    def master_name(self, cni: Attachment[VlanConfig]) -> str:
        """Return `master`. Raise ConfigError if it is missing: there is no default, unlike macvlan and ipvlan."""
        if not cni.config.master:
            raise ConfigError(_NO_MASTER)
        return cni.config.master
