"""ptp: connect a container to the host by a veth pair of its own, without a bridge. The host routes all its traffic.

container                host
eth0 ──── veth pair ──── veth3f9c… ── routing, masquerade ── uplink
10.1.0.2/24              10.1.0.1/32
"""

from pycni.sdk import Attachment, Field, Lease, MasqBackend, NetConf, Network, Plugin, Result

from . import addressing


class PtpConfig(NetConf):
    """Configuration of ptp. README.md describes the options."""

    needs_addresses = "the host routes to the container by its addresses"

    ip_masq: bool = False
    ip_masq_backend: MasqBackend = ""
    mtu: int = Field(0, ge=0, le=65535)


class Ptp(Plugin[PtpConfig]):
    """The ptp plugin."""

    config = PtpConfig

    def add(self, cni: Attachment[PtpConfig]) -> Result:
        """Create the veth pair, with addresses and routes at both ends."""
        conf, host, container = cni.config, cni.host, cni.container
        container.links.expect_absent(cni.ifname)  # before IPAM reserves addresses
        lease = addressing.complete(cni.ipam.add())
        host.sysctls.ensure_forwarding(lease.cidrs)
        port, eth = host.links.create_veth(
            cni.host_ifname, peer=cni.ifname, peer_in=container, mtu=conf.mtu, alias=cni.owner.label
        )
        host.addresses.configure_gateway(port, addressing.gateways(lease), addressing.routes_to_container(lease))
        if conf.ip_masq:
            host.firewall.masquerade.create(lease.cidrs, cni.owner, backend=conf.ip_masq_backend)
        container.addresses.configure(eth, lease.cidrs, addressing.routes_to_host(lease), on_link=False)
        host.addresses.wait_until_reachable(port, addressing.gateways(lease))
        container.addresses.wait_until_reachable(eth, lease.cidrs)
        container.addresses.announce(eth)
        return cni.result(port, eth, lease=lease, on=eth)

    def check(self, cni: Attachment[PtpConfig]) -> None:
        """Raise CniError if a link, an address, a route or masquerading differs from ADD's, at either end."""
        host, container = cni.host, cni.container
        cni.ipam.check()
        cni.expect_prev_result()
        lease = Lease(tuple(cni.prev_ips)).with_gateways()
        eth = container.link(cni.ifname)
        eth.expect(kind="veth", up=True)
        for route in addressing.routes_to_host(lease):
            container.routes.expect(eth, route)
        port = host.links.peer(eth)
        port.expect(up=True)
        for gateway in addressing.gateways(lease):
            host.addresses.expect(port, gateway)
        for route in addressing.routes_to_container(lease):
            host.routes.expect(port, route)
        if cni.config.ip_masq:
            host.firewall.masquerade.expect(lease.cidrs, cni.owner, backend=cni.config.ip_masq_backend)

    def delete(self, cni: Attachment[PtpConfig]) -> None:
        """Remove the veth pair, and with it the host's addresses and routes; then masquerading and the reservations."""
        cni.delete_veth()
        cni.delete_masquerade()
        cni.ipam.delete()

    def status(self, cni: Network[PtpConfig]) -> None:
        """Raise CniError if IPAM, or the firewall backend for `ipMasq`, is not available."""
        if cni.config.ip_masq:
            cni.host.firewall.probe(cni.config.ip_masq_backend)
        cni.ipam.status()
