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


class RuntimeConfig(Model):
    """What the runtime asks for (capability `bandwidth`)."""

    bandwidth: Limits = Limits()


class BandwidthConfig(Limits, NetConf):
    """The options of bandwidth; README.md explains them."""

    runtime_config: RuntimeConfig = RuntimeConfig()

    @property
    def limits(self) -> Limits:
        """The limits that count: one at the top level, even if it is 0, hides those of the runtime."""
        return self if Limits.model_fields.keys() & self.model_fields_set else self.runtime_config.bandwidth

    @model_validator(mode="after")
    def _limits_can_be_kept(self) -> Self:
        self.limits.checked()
        return self


class Bandwidth(Plugin[BandwidthConfig]):
    """The plugin; it works on the host's end of a cable (bridge, ptp)."""

    config = BandwidthConfig
    versions = Plugin.versions[2:]  # from 0.3.0 on, which knows chains

    def add(self, cni: Attachment[BandwidthConfig]) -> Result:
        """Limit both directions; with nothing to limit, nothing is looked at."""
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
        """See that both directions are limited as configured: rate, burst and latency."""
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
        """Remove the limits from the host's end of the cable, if that is still there, and the ifb."""
        host, eth = cni.host, cni.find_owned_link()
        port = host.links.find_peer(eth) if eth is not None else None
        if port is not None:
            host.shaping.delete(port)
        host.links.delete(ifb_name(cni.owner))
        other = host.find_link(go_ifb_name(cni.owner))
        # What is still in use, or has an owner, belongs to another interface of the same container.
        if other is not None and not other.state.alias and other.index not in host.shaping.redirect_targets():
            host.links.delete(other.name)

    def gc(self, cni: Network[BandwidthConfig]) -> None:
        """Remove the ifb of attachments that are not valid any more, the Go plugin's too once nothing leads there."""
        host = cni.host
        host.delete_stale(cni.stale)
        valid = {go_ifb_name(owner) for owner in cni.valid_attachments or ()}
        unowned = [link for link in host.links.all() if _is_go_ifb(link) and link.name not in valid]
        used = host.shaping.redirect_targets() if unowned else set()
        for ifb in unowned:
            if ifb.index not in used:
                host.links.delete(ifb.name)

    def status(self, cni: Network[BandwidthConfig]) -> None:
        """Ready if the kernel can limit."""
        cni.host.shaping.expect_supported()


def _chained(cni: Attachment[BandwidthConfig]) -> Result:
    """What the earlier plugins made."""
    if cni.prev_result is None:
        raise ConfigError(
            "must be called as chained plugin: there is no prevResult",
            details=f"an earlier plugin of the list makes {cni.ifname}; its result is the prevResult",
        )
    return cni.prev_result


def _port(cni: Attachment[BandwidthConfig], result: Result) -> "Link":
    """The host's end of the cable, which must be among what the earlier plugins made."""
    if not result.interfaces:
        raise ConfigError("no interfaces provided", details="prevResult names none; an earlier plugin makes them")
    eth = cni.container.link(cni.ifname)
    if eth.state.kind != "veth":
        raise CniError(
            f"container interface {eth} has no veth peer",
            details=f'it is "{eth.state.kind or "physical"}"; bandwidth limits cables, as bridge and ptp make them',
        )
    port = cni.host.links.peer(eth)
    if port.name not in {interface.name for interface in result.interfaces if not interface.sandbox}:
        raise CniError(
            "no veth peer of container interface found in host ns",
            details=f"{eth} is connected to {port}, which prevResult does not name",
        )
    return port


def _ifb(cni: Attachment[BandwidthConfig]) -> "Link":
    """The ifb of this attachment, whoever made it."""
    for name in (ifb_name(cni.owner), go_ifb_name(cni.owner)):
        ifb = cni.host.find_link(name)
        if ifb is not None and (not ifb.state.alias or cni.owner.owns(ifb.state.alias)):
            return ifb
    raise CniError(f"{ifb_name(cni.owner)}, the ifb through which {cni.ifname} sends, is gone")


def _is_go_ifb(link: "Link") -> bool:
    return link.state.kind == "ifb" and not link.state.alias and is_ifb_name(link.name)
