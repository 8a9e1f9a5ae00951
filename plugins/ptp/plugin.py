"""ptp: connect a container to the host by a cable of its own; whatever it sends is routed.

container                host
eth0 ──── veth pair ──── veth3f9c… ── (routing, masquerade) ── the world
10.1.0.2/24              10.1.0.1/32
"""

from pycni.sdk import Attachment, Field, Lease, MasqBackend, NetConf, Network, Plugin, Result

from . import wiring


class PtpConfig(NetConf):
    """The options of ptp; README.md explains them."""

    needs_addresses = "without addresses nothing can be routed to the container"

    ip_masq: bool = False
    ip_masq_backend: MasqBackend = ""
    mtu: int = Field(0, ge=0, le=65535)


class Ptp(Plugin[PtpConfig]):
    """The plugin; its methods tell in which order things happen."""

    config = PtpConfig

    def add(self, cni: Attachment[PtpConfig]) -> Result:
        """Lay the cable, and routes over it in both directions."""
        conf, host, container = cni.config, cni.host, cni.container
        container.expect_no_link(cni.ifname)  # before IPAM is asked for what could not be used
        lease = wiring.complete(cni.ipam.add())
        host.ensure_forwarding(lease.cidrs)
        port, eth = host.create_veth(
            cni.host_ifname, peer=cni.ifname, peer_in=container, mtu=conf.mtu, alias=cni.owner.label
        )
        host.configure_port(port, wiring.gateways(lease), wiring.routes_to_container(lease))
        if conf.ip_masq:
            host.create_masquerade(lease.cidrs, cni.owner, backend=conf.ip_masq_backend)
        container.configure(eth, lease.cidrs, wiring.routes_to_host(lease), on_link=False)
        host.wait_until_reachable(port, wiring.gateways(lease))
        container.wait_until_reachable(eth, lease.cidrs)
        container.announce(eth)
        return cni.result(port, eth, lease=lease, on=eth)

    def check(self, cni: Attachment[PtpConfig]) -> None:
        """See that everything is as ADD left it, at both ends."""
        host, container = cni.host, cni.container
        cni.ipam.check()
        cni.expect_prev_result()
        lease = Lease(tuple(cni.prev_ips)).with_gateways()
        eth = container.link(cni.ifname)
        eth.expect(kind="veth", up=True)
        for route in wiring.routes_to_host(lease):
            container.expect_route(eth, route)
        port = host.peer_of(eth)
        port.expect(up=True)
        for gateway in wiring.gateways(lease):
            host.expect_address(port, gateway)
        for route in wiring.routes_to_container(lease):
            host.expect_route(port, route)
        if cni.config.ip_masq:
            host.expect_masquerade(lease.cidrs, cni.owner, backend=cni.config.ip_masq_backend)

    def delete(self, cni: Attachment[PtpConfig]) -> None:
        """Remove the cable, and with it the host's addresses and routes; then masquerading and the addresses."""
        cni.delete_veth()
        cni.delete_masquerade()
        cni.ipam.delete()

    def status(self, cni: Network[PtpConfig]) -> None:
        """Ready if IPAM is, and the firewall if it is needed."""
        if cni.config.ip_masq:
            cni.host.expect_masquerading(cni.config.ip_masq_backend)
        cni.ipam.status()
