"""Which containers cannot reach each other: bridges kept apart, and ports of one bridge."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pycni.kernel.firewall.iptables import isolation as by_iptables
from pycni.kernel.firewall.nftables import isolation as by_nftables
from pycni.kernel.firewall.nftables import port_isolation
from pycni.kernel.firewall.nftables.nft import NftError, NftUnavailableError
from pycni.kernel.firewall.settings import Firewall
from pycni.kernel.link.link_state import all_states, find_state
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

_BRIDGED = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}


@dataclass(frozen=True)
class BridgeIsolation:
    """A bridge that is kept apart from all others that are, and which of its ports are the attachment's.

    With `strict` these ports cannot reach others of the bridge either. `versions`: the families of the addresses.
    """

    bridge: str
    ports: tuple[str, ...]
    versions: frozenset[int]
    strict: bool = False


def create(netns: NetnsHandle, fence: BridgeIsolation, owner: Owner, firewall: Firewall) -> None:
    """Put the fence up."""
    ports = _ports(netns, fence)
    if firewall.backend == "iptables":
        in_use = partial(_in_use, netns, owner, fence)
        by_iptables.create(netns, fence.bridge, sorted(fence.versions), in_use, strict=fence.strict)
    else:
        by_nftables.create(netns, fence.bridge, owner, strict=fence.strict)
    if not ports:
        return
    try:
        port_isolation.create(netns, ports, owner)
    except (NftError, NftUnavailableError) as error:
        if not _is_bridged_traffic_filtered(netns, fence):
            raise CniError(
                f"cannot isolate the ports of {fence.bridge}: {error}",
                details="iptables sees bridged packets only with the kernel module br_netfilter, and with "
                "net.bridge.bridge-nf-call-iptables and -ip6tables set to 1",
            ) from None


def expect(netns: NetnsHandle, fence: BridgeIsolation, owner: Owner, firewall: Firewall) -> None:
    """Raise CniError unless the fence is up: by the backend, or by any if none is named."""
    strict = fence.strict
    held_by_iptables = partial(by_iptables.expect, netns, fence.bridge, sorted(fence.versions), strict=strict)
    if firewall.backend == "iptables":
        held_by_iptables()
    else:
        try:
            by_nftables.expect(netns, fence.bridge, owner, strict=strict)
        except CniError:
            if firewall.backend == "nftables" or not _holds(held_by_iptables):
                raise
    if strict:
        _expect_ports(netns, fence, owner)


def delete(netns: NetnsHandle, owner: Owner | Stale, fence: BridgeIsolation | None = None) -> None:
    """Let go of the fence, which goes with the last who needs it; which it is is looked up unless `fence` says it."""
    bridge, ports = (fence.bridge, fence.ports) if fence else ("", None)
    attempt = netns.journal.attempt
    attempt("delete isolation by nftables", partial(by_nftables.delete, netns, owner, bridge))
    attempt("delete isolation of bridge ports", partial(port_isolation.delete, netns, owner, ports))
    in_use = partial(_in_use, netns, owner, fence)
    attempt("delete isolation by iptables", partial(by_iptables.delete, netns, in_use))


def _ports(netns: NetnsHandle, fence: BridgeIsolation) -> list[str]:
    """The ports that are to be isolated. Raises CniError if there is no such link, or no port of it."""
    state = find_state(netns, fence.bridge)
    if state is None:
        raise CniError(f'cannot isolate "{fence.bridge}": there is no such link on the host')
    if not fence.strict or state.kind != "bridge":
        return []
    found = [find_state(netns, name) for name in fence.ports]
    ports = [port.name for port in found if port is not None and port.master == state.index]
    if not ports:
        raise CniError(
            f"cannot isolate the container from others on {fence.bridge}: its port is not known",
            details="prevResult names no interface of the host that is plugged into the bridge",
        )
    return ports


def _expect_ports(netns: NetnsHandle, fence: BridgeIsolation, owner: Owner) -> None:
    ports = _ports(netns, fence)
    try:
        port_isolation.expect(netns, ports, owner)
    except CniError:
        if not _is_bridged_traffic_filtered(netns, fence):
            raise


def _is_bridged_traffic_filtered(netns: NetnsHandle, fence: BridgeIsolation) -> bool:
    """Whether the rules about forwarding see what crosses a bridge too."""
    try:
        with netns.entered():
            settings = [Path("/proc/sys/net/bridge", _BRIDGED[version]).read_text() for version in fence.versions]
    except OSError:
        return False
    return all(setting.strip() == "1" for setting in settings)


def _in_use(netns: NetnsHandle, owner: Owner | Stale, fence: BridgeIsolation | None) -> Collection[str]:
    """The bridges with ports that are not the owner's, and the links that are no bridges and not the owner's."""
    own = {fence.bridge, *fence.ports} if fence else set()
    if isinstance(owner, Owner):
        own.add(owner.host_ifname)
    states = all_states(netns)
    names = {state.index: state.name for state in states}
    others = [state for state in states if state.name not in own and not owner.owns(state.alias)]
    return {names.get(state.master, "") for state in others if state.master} | {
        state.name for state in others if state.kind != "bridge"
    }


def _holds(expect: partial[None]) -> bool:
    try:
        expect()
    except CniError:
        return False
    return True
