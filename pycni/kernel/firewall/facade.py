"""The firewall of a network namespace as plugins use it: one attribute per concern."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pycni.kernel.firewall import backend as backends
from pycni.kernel.firewall import forward_rules, host_ports, isolation, masquerade, spoof_check

if TYPE_CHECKING:
    from pycni.kernel.firewall.forward_rules import ForwardRules
    from pycni.kernel.firewall.host_ports import HostPortRules
    from pycni.kernel.firewall.isolation import IsolationRules
    from pycni.kernel.firewall.masquerade import MasqueradeRules
    from pycni.kernel.firewall.spoof_check import SpoofCheckRules
    from pycni.kernel.netns.handle import NetnsHandle


class Firewall:
    """The firewall of a network namespace: `cni.host.firewall`.

    cni.host.firewall.masquerade.create(lease.cidrs, cni.owner, backend="iptables")
    """

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    @cached_property
    def masquerade(self) -> MasqueradeRules:
        """Masquerading (source NAT) of what containers send."""
        return masquerade.MasqueradeRules(self._netns)

    @cached_property
    def host_ports(self) -> HostPortRules:
        """Host ports: DNAT from ports of the host to ports of containers."""
        return host_ports.HostPortRules(self._netns)

    @cached_property
    def forward_rules(self) -> ForwardRules:
        """Forward rules: accept packets from containers, and replies to them."""
        return forward_rules.ForwardRules(self._netns)

    @cached_property
    def isolation(self) -> IsolationRules:
        """Isolation of bridges from each other, and of the ports of a bridge."""
        return isolation.IsolationRules(self._netns)

    @cached_property
    def spoof_check(self) -> SpoofCheckRules:
        """MAC spoof check: a bridge port may send only from its container's MAC address."""
        return spoof_check.SpoofCheckRules(self._netns)

    def probe(self, backend: str = "") -> None:
        """Raise CniError, code 50, unless `backend` works; if "", unless the default for masquerading works."""
        backends.probe(self._netns, backends.resolve(backend))
