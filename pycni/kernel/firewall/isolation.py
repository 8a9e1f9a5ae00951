"""Isolation of bridges from each other by nftables or iptables, and of the ports of a bridge by nftables."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.kernel.firewall import backend as backends
from pycni.kernel.firewall.iptables import isolation as iptables
from pycni.kernel.firewall.nftables import isolation as nftables
from pycni.kernel.firewall.nftables import port_isolation
from pycni.kernel.firewall.nftables.nft import NftError, NftUnavailableError
from pycni.kernel.link.link_state import find_state
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from pycni.kernel.firewall.protocols import IsolationBackend
    from pycni.kernel.firewall.settings import BridgeIsolation, FirewallSettings
    from pycni.kernel.netns.handle import NetnsHandle
    from pycni.kernel.owner import Owner, Stale

_BRIDGE_SETTINGS = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}


class IsolationRules:
    """Isolation in a network namespace. `protocols.IsolationBackend` documents methods and arguments.

    The backend is iptables if `settings` name it, else nftables. Packets between two ports of one bridge never reach
    the forwarding hooks, so a strict isolation also drops them in nftables' bridge family. Where that is missing, rules
    in the forwarding hooks suffice if the module br_netfilter passes bridged packets to them.
    """

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    @property
    def _nftables(self) -> IsolationBackend:
        return nftables.NftablesIsolation(self._netns)

    @property
    def _iptables(self) -> IsolationBackend:
        return iptables.IptablesIsolation(self._netns)

    def create(self, isolation: BridgeIsolation, owner: Owner, settings: FirewallSettings) -> None:
        """Isolate the bridge, and if it is strict the owner's ports.

        Raises CniError if the bridge does not exist, or if its ports cannot be isolated.
        """
        ports = self._strict_ports(isolation)
        by_iptables = settings.backend == backends.IPTABLES
        (self._iptables if by_iptables else self._nftables).create(isolation, owner)
        if not ports:
            return
        try:
            port_isolation.create(self._netns, ports, owner)
        except (NftError, NftUnavailableError) as error:
            if not self._is_bridged_traffic_filtered(isolation):
                raise CniError(
                    f"cannot isolate the ports of {isolation.bridge}: {error}",
                    details="iptables sees bridged packets only with the kernel module br_netfilter, and with "
                    "net.bridge.bridge-nf-call-iptables and -ip6tables set to 1",
                ) from None

    def expect(self, isolation: BridgeIsolation, owner: Owner, settings: FirewallSettings) -> None:
        """Raise CniError unless the bridge is isolated: by the backend, or by either if `settings` name none."""
        if settings.backend == backends.IPTABLES:
            self._iptables.expect(isolation, owner)
        else:
            try:
                self._nftables.expect(isolation, owner)
            except CniError:
                if settings.backend == backends.NFTABLES or not self._is_held_by_iptables(isolation, owner):
                    raise
        if isolation.strict:
            self._expect_ports(isolation, owner)

    def delete(self, owner: Owner | Stale, isolation: BridgeIsolation | None = None) -> None:
        """Withdraw the owner's request to isolate bridges and ports, in both backends."""
        attempt = self._netns.journal.attempt
        attempt("delete isolation by nftables", partial(self._nftables.delete, owner, isolation))
        ports = isolation.ports if isolation else None
        attempt("delete isolation of bridge ports", partial(port_isolation.delete, self._netns, owner, ports))
        attempt("delete isolation by iptables", partial(self._iptables.delete, owner, isolation))

    def _strict_ports(self, isolation: BridgeIsolation) -> list[str]:
        """Return the ports to isolate: none unless the isolation is strict and the link is a bridge.

        Raises CniError if there is no such link, or if none of the ports is plugged into the bridge.
        """
        state = find_state(self._netns, isolation.bridge)
        if state is None:
            raise CniError(f'cannot isolate "{isolation.bridge}": there is no such link on the host')
        if not isolation.strict or state.kind != "bridge":
            return []
        found = [find_state(self._netns, name) for name in isolation.ports]
        ports = [port.name for port in found if port is not None and port.master == state.index]
        if not ports:
            raise CniError(
                f"cannot isolate the container from others on {isolation.bridge}: its port is not known",
                details="prevResult names no interface of the host that is plugged into the bridge",
            )
        return ports

    def _expect_ports(self, isolation: BridgeIsolation, owner: Owner) -> None:
        ports = self._strict_ports(isolation)
        try:
            port_isolation.expect(self._netns, ports, owner)
        except CniError:
            if not self._is_bridged_traffic_filtered(isolation):
                raise

    def _is_bridged_traffic_filtered(self, isolation: BridgeIsolation) -> bool:
        """Return whether br_netfilter passes bridged packets to the forwarding hooks, for all IP versions in use."""
        names = [_BRIDGE_SETTINGS[version] for version in isolation.versions]
        try:
            with self._netns.enter():
                settings = [Path("/proc/sys/net/bridge", name).read_text() for name in names]
        except OSError:
            return False
        return all(setting.strip() == "1" for setting in settings)

    def _is_held_by_iptables(self, isolation: BridgeIsolation, owner: Owner) -> bool:
        try:
            self._iptables.expect(isolation, owner)
        except CniError:
            return False
        return True
