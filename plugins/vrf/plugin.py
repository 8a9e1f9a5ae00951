"""vrf: an interface of a container is routed by a table of its own, with all others of the same VRF.

container
net1 ──┐
       ├── vrf blue ── table 1: default via 10.1.0.1 dev net1 · 10.1.0.0/24 dev net1 · …
net2 ──┘
eth0 ──────────────── table main
"""

from collections.abc import Iterator
from dataclasses import replace

from pycni.sdk import Attachment, ConfigError, Field, Lease, NetConf, Network, OptionalIfname, Plugin, Result

_NAMELESS = "configuration is expected to have a valid vrf name"


class VrfConfig(NetConf):
    """The options of vrf; README.md explains them."""

    vrfname: OptionalIfname = ""
    table: int = Field(0, ge=0, lt=1 << 32)

    @property
    def required_name(self) -> str:
        """The name of the VRF, which STATUS can do without. Raises ConfigError."""
        if not self.vrfname:
            raise ConfigError(_NAMELESS, details='"vrfname" is missing')
        return self.vrfname

    def complaints(self) -> Iterator[str]:
        """That there is no name."""
        if not self.vrfname:
            yield f"vrfname: {_NAMELESS}"


class Vrf(Plugin[VrfConfig]):
    """The plugin; it belongs after the one that made the interface."""

    config = VrfConfig
    versions = Plugin.versions[3:]  # from 0.3.1 on, as the Go plugin

    def add(self, cni: Attachment[VrfConfig]) -> Result:
        """Put the interface into the VRF, which is made if it is missing, and wait until it can be used again."""
        name, container, result = cni.config.required_name, cni.container, cni.required_prev_result
        eth = container.link(cni.ifname)
        works = eth.state.operstate == "UP"
        with container.locked("choosing a routing table"):
            vrf = container.ensure_vrf(name, cni.config.table or None)
            container.join_vrf(eth, vrf)
        if works:
            container.wait_until_reachable(eth, [ip.address for ip in cni.prev_ips])
            port = cni.host.find_peer_of(eth)
            if port is not None:
                cni.host.wait_for_carrier(port)
        return result

    def check(self, cni: Attachment[VrfConfig]) -> None:
        """See that the interface is in the VRF, with its addresses, and its routes in the VRF's table."""
        conf, container, result = cni.config, cni.container, cni.required_prev_result
        vrf, eth = container.link(conf.required_name), container.link(cni.ifname)
        vrf.expect(kind="vrf", up=True)
        if conf.table:
            vrf.expect(table=conf.table)
        container.expect_in_vrf(eth, vrf)
        for ip in cni.prev_ips:
            container.expect_address(eth, ip.address)
        for route in Lease(tuple(cni.prev_ips), result.routes).resolved_routes():
            table = vrf.state.table if route.table is None else route.table
            container.expect_route(eth, replace(route, table=table))

    def delete(self, cni: Attachment[VrfConfig]) -> None:
        """Take the interface out of the VRF, which goes with its last member."""
        cni.container.leave_vrf(cni.find_own_link(), cni.config.vrfname)

    def status(self, cni: Network[VrfConfig]) -> None:
        """Ready if the kernel has VRFs."""
        cni.host.expect_kind("vrf")
