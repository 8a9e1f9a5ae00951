"""bridge: give a container an Ethernet port on a bridge of the host.

container             host
eth0 ── veth pair ── veth3f9c… ── cni0 ── (routing, masquerade) ── the world
"""

from typing import Self

from pycni.sdk import (
    Attachment,
    Field,
    Ifname,
    Lease,
    Link,
    MacSource,
    MasqBackend,
    Model,
    NetConf,
    Network,
    Plugin,
    Result,
    field_validator,
    model_validator,
)

from .vlans import VlanRange


class Args(Model):
    """Metadata of the configuration."""

    cni: MacSource = MacSource()


class BridgeConfig(NetConf):
    """The options of bridge; README.md explains them."""

    bridge: Ifname = "cni0"
    mtu: int = Field(0, ge=0, le=65535)
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    ip_masq_backend: MasqBackend = ""
    hairpin_mode: bool = False
    promisc_mode: bool = False
    port_isolation: bool = False
    vlan: int = 0
    vlan_trunk: tuple[VlanRange, ...] | None = None
    preserve_default_vlan: bool = False
    mac_spoof_check: bool = Field(False, alias="macspoofchk")
    enable_dad: bool = Field(False, alias="enabledad")
    disable_container_interface: bool = False
    args: Args = Args()
    runtime_config: MacSource = MacSource()

    @field_validator("vlan")
    @classmethod
    def _vlan_exists(cls, vlan: int) -> int:
        if not 0 <= vlan <= 4094:
            raise ValueError(f"invalid VLAN ID {vlan} (must be between 0 and 4094)")
        return vlan

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.hairpin_mode and self.promisc_mode:
            raise ValueError("cannot set hairpin mode and promiscuous mode at the same time")
        if self.disable_container_interface and self.ipam.type:
            raise ValueError(
                "cannot use IPAM when DisableContainerInterface flag is set: a link that is down holds no addresses"
            )
        return self

    @property
    def gateway(self) -> bool:
        """Whether the bridge is the containers' gateway."""
        return self.is_gateway or self.is_default_gateway

    @property
    def filters_vlans(self) -> bool:
        """Whether the bridge tells VLANs apart; a vlanTrunk does it even when it is empty."""
        return bool(self.vlan) or self.vlan_trunk is not None

    @property
    def trunk(self) -> tuple[int, ...]:
        """The tagged VLANs of the port."""
        return tuple(sorted(set().union(*(part.ids for part in self.vlan_trunk or ()))))

    def mac(self, cni_args: dict[str, str]) -> str:
        """The MAC of the container's end; empty if nobody asks for one."""
        return self.runtime_config.mac or self.args.cni.mac or MacSource.in_args(cni_args)

    def complete(self, lease: Lease) -> Lease:
        """What the configuration adds to the addresses that IPAM handed out."""
        if self.gateway:
            lease = lease.with_gateways()
        return lease.with_default_routes() if self.is_default_gateway else lease


class Bridge(Plugin[BridgeConfig]):
    """The plugin; its methods tell in which order things happen."""

    config = BridgeConfig
    cni_args = ("MAC",)

    def add(self, cni: Attachment[BridgeConfig]) -> Result:
        """Plug the container into the bridge and give it its addresses."""
        conf, host, container = cni.config, cni.host, cni.container
        mac = conf.mac(cni.args)
        bridge = host.ensure_bridge(
            conf.bridge, mtu=conf.mtu, promisc=conf.promisc_mode, vlan_filtering=conf.filters_vlans
        )
        port, eth = host.create_veth(
            cni.host_ifname,
            peer=cni.ifname,
            peer_in=container,
            mtu=conf.mtu,
            mac=mac,
            alias=cni.owner.label,
        )
        host.plug(port, bridge, hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
        if conf.filters_vlans:
            port.set_port_vlans(untagged=conf.vlan or 1, tagged=conf.trunk, keep_default=conf.preserve_default_vlan)
        if conf.mac_spoof_check:
            host.create_spoof_check(port, eth.mac, cni.owner)
        lease = conf.complete(cni.ipam.add())  # only now: a DHCP client needs the link
        made, holder = [bridge, port, eth], None
        if lease.ips and conf.gateway:
            holder = self._holder(cni, bridge)
            made += [holder] if conf.vlan else []
            self._become_gateway(cni, holder, lease)
        if lease.ips and conf.ip_masq:
            host.create_masquerade(lease.cidrs, cni.owner, backend=conf.ip_masq_backend)
        if not conf.disable_container_interface:
            container.configure(eth, lease.cidrs, lease.resolved_routes(), dad=conf.enable_dad)
            # A frame sent before the port forwards is lost.
            host.wait_for_carrier(port, *([holder] if holder else []))
            if holder:
                host.wait_until_reachable(holder, lease.gateways)
            container.wait_until_reachable(eth, lease.cidrs)
            container.announce(eth)
        return cni.result(*made, lease=lease, on=eth)

    def _holder(self, cni: Attachment[BridgeConfig], bridge: Link) -> Link:
        """What has the gateway's addresses: the bridge, or a link in the VLAN of the port."""
        conf = cni.config
        if not conf.vlan:
            return bridge
        return cni.host.ensure_vlan_gateway(bridge, conf.vlan, keep_default=conf.preserve_default_vlan)

    def _become_gateway(self, cni: Attachment[BridgeConfig], holder: Link, lease: Lease) -> None:
        for gateway in lease.gateways:
            cni.host.ensure_address(holder, gateway, force=cni.config.force_address)
        cni.host.ensure_forwarding(lease.cidrs)

    def check(self, cni: Attachment[BridgeConfig]) -> None:
        """See that everything is as ADD left it."""
        conf, host = cni.config, cni.host
        cni.ipam.check()
        cni.expect_prev_result()
        bridge = host.link(conf.bridge)
        bridge.expect(kind="bridge", up=True)
        if conf.promisc_mode:
            bridge.expect(promisc=True)
        eth = cni.container.link(cni.ifname)
        eth.expect(kind="veth")
        if not conf.disable_container_interface:  # else whoever wants it may set it up
            eth.expect(up=True)
        port = host.peer_of(eth)
        port.expect(master=bridge.index, up=True, hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
        if conf.filters_vlans:
            port.expect_port_vlans({conf.vlan or 1, *conf.trunk})
        if conf.mac_spoof_check:
            host.expect_spoof_check(port, eth.mac, cni.owner)
        if conf.gateway:
            holder = host.link(f"{bridge}.{conf.vlan}") if conf.vlan else bridge
            for gateway in Lease(tuple(cni.prev_ips)).gateways:
                host.expect_address(holder, gateway)
        if conf.ip_masq and cni.prev_ips:
            cidrs = [ip.address for ip in cni.prev_ips]
            host.expect_masquerade(cidrs, cni.owner, backend=conf.ip_masq_backend)

    def delete(self, cni: Attachment[BridgeConfig]) -> None:
        """Remove the cable and what the firewall knows of it; the bridge stays for the others."""
        cni.delete_veth()
        cni.host.delete_spoof_check(cni.owner)
        cni.delete_masquerade()
        cni.ipam.delete()

    def status(self, cni: Network[BridgeConfig]) -> None:
        """Ready if IPAM is, and the firewall if it is needed."""
        if cni.config.ip_masq:
            cni.host.expect_masquerading(cni.config.ip_masq_backend)
        if cni.config.mac_spoof_check:
            cni.host.expect_firewall()
        cni.ipam.status()
