"""vrf: put an interface of the container into a VRF, whose members share a routing table of their own.

container
net1 ──┐
       ├── vrf blue ── table 1: default via 10.1.0.1 dev net1 · 10.1.0.0/24 dev net1 · …
net2 ──┘
eth0 ──────────────── table main
"""

from collections.abc import Iterator
from dataclasses import replace

from pycni.sdk import Attachment, ConfigError, Field, Lease, NetConf, Network, OptionalIfname, Plugin, Result

_NO_NAME = "configuration is expected to have a valid vrf name"


class VrfConfig(NetConf):
    """Configuration of vrf. README.md describes the options."""

    vrfname: OptionalIfname = ""
    table: int = Field(0, ge=0, lt=1 << 32)

    @property
    def required_name(self) -> str:
        """Return `vrfname`. Raise ConfigError if it is missing; not a validator, because STATUS works without it."""
        if not self.vrfname:
            raise ConfigError(_NO_NAME, details='"vrfname" is missing')
        return self.vrfname

    def problems(self) -> Iterator[str]:
        """Yield the error for a missing `vrfname`."""
        if not self.vrfname:
            yield f"vrfname: {_NO_NAME}"


class Vrf(Plugin[VrfConfig]):
    """The vrf plugin. It follows the plugin that creates the interface."""

    config = VrfConfig
    versions = Plugin.versions[3:]  # 0.3.1 and newer, as the Go plugin

    def add(self, cni: Attachment[VrfConfig]) -> Result:
        """Create the VRF if it is missing, add the interface, and wait until the interface is usable again."""
        name, container, result = cni.config.required_name, cni.container, cni.required_prev_result
        eth = container.link(cni.ifname)
        was_up = eth.state.operstate == "UP"  # the kernel sets the interface down and up when it enters a VRF
        with container.routes.lock_tables():
            vrf = container.vrfs.ensure(name, cni.config.table or None)
            container.vrfs.join(eth, vrf)
        if was_up:
            container.addresses.wait_until_reachable(eth, [ip.address for ip in cni.prev_ips])
            port = cni.host.links.find_peer(eth)
            if port is not None:
                cni.host.links.wait_for_carrier(port)
        return result

    def check(self, cni: Attachment[VrfConfig]) -> None:
        """Raise CniError unless the interface is in the VRF with its addresses, and its routes in the VRF's table."""
        conf, container, result = cni.config, cni.container, cni.required_prev_result
        vrf, eth = container.link(conf.required_name), container.link(cni.ifname)
        vrf.expect(kind="vrf", up=True)
        if conf.table:
            vrf.expect(table=conf.table)
        container.vrfs.expect_member(eth, vrf)
        for ip in cni.prev_ips:
            container.addresses.expect(eth, ip.address)
        for route in Lease(tuple(cni.prev_ips), result.routes).resolved_routes():
            table = vrf.state.table if route.table is None else route.table
            container.routes.expect(eth, replace(route, table=table))

    def delete(self, cni: Attachment[VrfConfig]) -> None:
        """Remove the interface from the VRF, and delete the VRF with its last member."""
        cni.container.vrfs.leave(cni.find_owned_link(), cni.config.vrfname)

    def status(self, cni: Network[VrfConfig]) -> None:
        """Raise CniError if the kernel does not support VRFs."""
        cni.host.links.expect_kind_supported("vrf")
