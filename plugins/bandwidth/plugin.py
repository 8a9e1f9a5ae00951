"""bandwidth: limit how fast a container receives (ingress) and sends (egress).

container            host
eth0 ── veth pair ── veth3f9c… ◄─── tbf ◄─── what the container receives
                         └───► bwp5d0a… ─── tbf ───► what the container sends
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pycni.sdk import (
    Attachment,
    CniError,
    ConfigError,
    Interface,
    Model,
    NetConf,
    Network,
    Plugin,
    Result,
    model_validator,
)

from .limits import Limits
from .names import go_ifb_name, ifb_name, is_ifb_name

if TYPE_CHECKING:
    from pycni.sdk import Link  # loads pyroute2, which an ADD with nothing to limit does not need


class BandwidthRuntimeConfig(Model):
    """The `runtimeConfig` object: the limits from the runtime (capability `bandwidth`)."""

    bandwidth: Limits = Limits()


class BandwidthConfig(Limits, NetConf):
    """Configuration of bandwidth. README.md describes the options."""

    runtime_config: BandwidthRuntimeConfig = BandwidthRuntimeConfig()

    @property
    def limits(self) -> Limits:
        """Return the effective limits. As in Go, any limit at the top level, even 0, hides those of the runtime."""
        return self if Limits.model_fields.keys() & self.model_fields_set else self.runtime_config.bandwidth

    @model_validator(mode="after")
    def _limits_are_valid(self) -> Self:
        self.limits.checked()
        return self


class Bandwidth(Plugin[BandwidthConfig]):
    """The bandwidth plugin. It works on the host end of a veth pair, as bridge and ptp create them."""

    config = BandwidthConfig
    versions = Plugin.versions[2:]  # 0.3.0 and newer, which have plugin lists

    def add(self, cni: Attachment[BandwidthConfig]) -> Result:
        """Create the limits of both directions. Without limits, return prevResult without looking at anything."""
        result, limits = _chained(cni), cni.config.limits
        if not limits.ingress and not limits.egress:
            return result
        host, port = cni.host, _port(cni, result)
        host.shaping.expect_absent(port)
        if limits.egress:
            ifb = host.shaping.create_ifb(
                ifb_name(cni.owner),
                mtu=port.state.mtu,
                alias=cni.owner.label,
                altname=go_ifb_name(cni.owner),  # so that the Go plugin's CHECK and DEL find it
            )
            host.shaping.create_limit(ifb, limits.egress)
            host.shaping.create_redirect(port, ifb)
            result = replace(result, interfaces=(*result.interfaces, Interface(ifb.name, ifb.mac)))
        if limits.ingress:
            host.shaping.create_limit(port, limits.ingress)
        return result

    def check(self, cni: Attachment[BandwidthConfig]) -> None:
        """Raise CniError unless both directions have the configured rate, burst and latency."""
        _, limits = _chained(cni), cni.config.limits
        if not limits.ingress and not limits.egress:
            return
        host = cni.host
        port = host.links.peer(cni.container.link(cni.ifname))
        if limits.ingress:
            host.shaping.expect_limit(port, limits.ingress)
        if limits.egress:
            ifb = _ifb(cni)
            ifb.expect(up=True)
            host.shaping.expect_limit(ifb, limits.egress)
            host.shaping.expect_redirect(port, ifb)

    def delete(self, cni: Attachment[BandwidthConfig]) -> None:
        """Remove the qdiscs from the host end of the veth pair, if it still exists, and delete the ifb."""
        host, eth = cni.host, cni.find_owned_link()
        port = host.links.find_peer(eth) if eth is not None else None
        if port is not None:
            host.shaping.delete(port)
        host.links.delete(ifb_name(cni.owner))
        go_ifb = host.find_link(go_ifb_name(cni.owner))
        # An ifb that is in use, or has an owner label, belongs to another interface of the same container.
        if go_ifb is not None and not go_ifb.state.alias and go_ifb.index not in host.shaping.redirect_targets():
            host.links.delete(go_ifb.name)

    def gc(self, cni: Network[BandwidthConfig]) -> None:
        """Delete the ifbs of stale attachments, and those of the Go plugin to which nothing is redirected."""
        host = cni.host
        host.delete_stale(cni.stale)
        valid = {go_ifb_name(owner) for owner in cni.valid_attachments or ()}
        unowned = [link for link in host.links.all() if _is_go_ifb(link) and link.name not in valid]
        used = host.shaping.redirect_targets() if unowned else set()
        for ifb in unowned:
            if ifb.index not in used:
                host.links.delete(ifb.name)

    def status(self, cni: Network[BandwidthConfig]) -> None:
        """Raise CniError if the kernel does not support tbf and ifb."""
        cni.host.shaping.expect_supported()


def _chained(cni: Attachment[BandwidthConfig]) -> Result:
    """Return prevResult. Raise ConfigError if there is none."""
    if cni.prev_result is None:
        raise ConfigError(
            "must be called as chained plugin: there is no prevResult",
            details=f"put bandwidth into a list, after the plugin that creates {cni.ifname}",
        )
    return cni.prev_result


def _port(cni: Attachment[BandwidthConfig], result: Result) -> "Link":
    """Return the host end of the veth pair. Raise CniError unless prevResult contains it."""
    if not result.interfaces:
        raise ConfigError(
            "no interfaces provided",
            details="prevResult has no interfaces: put bandwidth after a plugin that creates one",
        )
    eth = cni.container.link(cni.ifname)
    if eth.state.kind != "veth":
        raise CniError(
            f"container interface {eth} has no veth peer",
            details=f'its type is "{eth.state.kind or "physical"}"; bandwidth needs a veth pair (bridge, ptp)',
        )
    port = cni.host.links.peer(eth)
    if port.name not in {interface.name for interface in result.interfaces if not interface.sandbox}:
        raise CniError(
            "no veth peer of container interface found in host ns",
            details=f"the veth peer of {eth} is {port}, which prevResult does not contain",
        )
    return port


def _ifb(cni: Attachment[BandwidthConfig]) -> "Link":
    """Return the ifb of this attachment, created by pycni or by the Go plugin. Raise CniError if it is gone."""
    for name in (ifb_name(cni.owner), go_ifb_name(cni.owner)):
        ifb = cni.host.find_link(name)
        if ifb is not None and (not ifb.state.alias or cni.owner.owns(ifb.state.alias)):
            return ifb
    raise CniError(f"the ifb {ifb_name(cni.owner)}, which limits what {cni.ifname} sends, does not exist")


def _is_go_ifb(link: "Link") -> bool:
    return link.state.kind == "ifb" and not link.state.alias and is_ifb_name(link.name)
