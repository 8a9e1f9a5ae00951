"""bridge: connect a container to a Linux bridge on the host by a veth pair.

container             host
eth0 ── veth pair ── veth3f9c… ── cni0 ── routing, masquerade ── uplink
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


class BridgeArgs(Model):
    """The `args` object of the configuration."""

    cni: MacSource = MacSource()


class BridgeConfig(NetConf):
    """Configuration of bridge. README.md describes the options."""

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
    args: BridgeArgs = BridgeArgs()
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
    def acts_as_gateway(self) -> bool:
        """Return whether the bridge holds the gateway address of the containers."""
        return self.is_gateway or self.is_default_gateway

    @property
    def filters_vlans(self) -> bool:
        """Return whether VLAN filtering is on. As in Go, an empty `vlanTrunk` turns it on too."""
        return bool(self.vlan) or self.vlan_trunk is not None

    @property
    def trunk(self) -> tuple[int, ...]:
        """Return the VLAN ids that the port carries tagged, in ascending order."""
        return tuple(sorted(set().union(*(part.ids for part in self.vlan_trunk or ()))))

    def mac(self, cni_args: dict[str, str]) -> str:
        """Return the MAC address requested for the container interface, or "" if none is requested."""
        return self.runtime_config.mac or self.args.cni.mac or MacSource.from_cni_args(cni_args)

    def complete(self, lease: Lease) -> Lease:
        """Return the IPAM result with the gateways and default routes that the options ask for."""
        if self.acts_as_gateway:
            lease = lease.with_gateways()
        return lease.with_default_routes() if self.is_default_gateway else lease


class Bridge(Plugin[BridgeConfig]):
    """The bridge plugin."""

    config = BridgeConfig
    cni_args = ("MAC",)

    def add(self, cni: Attachment[BridgeConfig]) -> Result:
        """Create the bridge if it is missing, attach the container by a veth pair, and configure the addresses."""
        conf, host, container = cni.config, cni.host, cni.container
        mac = conf.mac(cni.args)
        bridge = host.bridges.ensure(
            conf.bridge, mtu=conf.mtu, promisc=conf.promisc_mode, vlan_filtering=conf.filters_vlans
        )
        port, eth = host.links.create_veth(
            cni.host_ifname,
            peer=cni.ifname,
            peer_in=container,
            mtu=conf.mtu,
            mac=mac,
            alias=cni.owner.label,
        )
        host.bridges.attach(port, bridge, hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
        if conf.filters_vlans:
            port.set_port_vlans(untagged=conf.vlan or 1, tagged=conf.trunk, keep_default=conf.preserve_default_vlan)
        if conf.mac_spoof_check:
            host.firewall.spoof_check.create(port, eth.mac, cni.owner)
        lease = conf.complete(cni.ipam.add())  # after the veth pair: the DHCP client sends over it
        interfaces, gateway_link = [bridge, port, eth], None
        if lease.ips and conf.acts_as_gateway:
            gateway_link = self._ensure_gateway_link(cni, bridge)
            interfaces += [gateway_link] if conf.vlan else []
            self._ensure_gateway(cni, gateway_link, lease)
        if lease.ips and conf.ip_masq:
            host.firewall.masquerade.create(lease.cidrs, cni.owner, backend=conf.ip_masq_backend)
        if not conf.disable_container_interface:
            container.addresses.configure(eth, lease.cidrs, lease.resolved_routes(), dad=conf.enable_dad)
            # The bridge drops frames until the port is in state forwarding.
            host.links.wait_for_carrier(port, *([gateway_link] if gateway_link else []))
            if gateway_link:
                host.addresses.wait_until_reachable(gateway_link, lease.gateways)
            container.addresses.wait_until_reachable(eth, lease.cidrs)
            container.addresses.announce(eth)
        return cni.result(*interfaces, lease=lease, on=eth)

    def _ensure_gateway_link(self, cni: Attachment[BridgeConfig], bridge: Link) -> Link:
        """Return the link that holds the gateway addresses: the bridge, or with `vlan` the link `<bridge>.<vlan>`."""
        conf = cni.config
        if not conf.vlan:
            return bridge
        return cni.host.bridges.ensure_vlan_gateway(bridge, conf.vlan, keep_default=conf.preserve_default_vlan)

    def _ensure_gateway(self, cni: Attachment[BridgeConfig], gateway_link: Link, lease: Lease) -> None:
        """Configure the gateway addresses and enable IP forwarding."""
        for gateway in lease.gateways:
            cni.host.addresses.ensure(gateway_link, gateway, force=cni.config.force_address)
        cni.host.sysctls.ensure_forwarding(lease.cidrs)

    def check(self, cni: Attachment[BridgeConfig]) -> None:
        """Raise CniError if the bridge, the veth pair, its port settings or the firewall state differ from ADD's."""
        conf, host = cni.config, cni.host
        cni.ipam.check()
        cni.expect_prev_result()
        bridge = host.link(conf.bridge)
        bridge.expect(kind="bridge", up=True)
        if conf.promisc_mode:
            bridge.expect(promisc=True)
        eth = cni.container.link(cni.ifname)
        eth.expect(kind="veth")
        if not conf.disable_container_interface:  # otherwise the workload decides whether it is up
            eth.expect(up=True)
        port = host.links.peer(eth)
        port.expect(master=bridge.index, up=True, hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
        if conf.filters_vlans:
            port.expect_port_vlans({conf.vlan or 1, *conf.trunk})
        if conf.mac_spoof_check:
            host.firewall.spoof_check.expect(port, eth.mac, cni.owner)
        if conf.acts_as_gateway:
            gateway_link = host.link(f"{bridge}.{conf.vlan}") if conf.vlan else bridge
            for gateway in Lease(tuple(cni.prev_ips)).gateways:
                host.addresses.expect(gateway_link, gateway)
        if conf.ip_masq and cni.prev_ips:
            cidrs = [ip.address for ip in cni.prev_ips]
            host.firewall.masquerade.expect(cidrs, cni.owner, backend=conf.ip_masq_backend)

    def delete(self, cni: Attachment[BridgeConfig]) -> None:
        """Remove the veth pair, spoof check, masquerading and addresses. The bridge is shared and stays."""
        cni.delete_veth()
        cni.host.firewall.spoof_check.delete(cni.owner)
        cni.delete_masquerade()
        cni.ipam.delete()

    def status(self, cni: Network[BridgeConfig]) -> None:
        """Raise CniError if IPAM, or a firewall backend that the options need, is not available."""
        if cni.config.ip_masq:
            cni.host.firewall.probe(cni.config.ip_masq_backend)
        if cni.config.mac_spoof_check:
            cni.host.firewall.spoof_check.probe()
        cni.ipam.status()
