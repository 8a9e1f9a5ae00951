"""firewall: let an attachment's packets through the host's firewall, and keep containers apart.

containers      host                                                        the world
a, b ── br0 ──┬─ from a: accepted · to a: what belongs to it ── routing ──  eth0
c    ── br1 ──┘  br0 ✗ br1 (same-bridge, isolated) · a ✗ b (isolated)
"""

import re

from pycni.sdk import Address, Attachment, BridgeIsolation, CniError, NetConf, Network, Plugin, Result, field_validator
from pycni.sdk import Firewall as Backend

_POLICIES = ("", "open", "same-bridge", "isolated")
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,27}")  # what both iptables and nftables take
_TAKEN = {"input", "forward", "output", "fence", "accept", "drop", "reject", "return", "queue", "cni-forward"}


class FirewallConfig(NetConf):
    """The options of firewall; README.md explains them."""

    backend: str = ""
    iptables_admin_chain_name: str = ""
    firewalld_zone: str = ""
    ingress_policy: str = ""

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        if backend not in ("", "nftables", "iptables", "firewalld"):
            raise ValueError(
                f'unknown firewall backend "{backend}": there are nftables, iptables and firewalld; '
                "without one, firewalld is taken where it is running, iptables where that drops what it has no rule "
                "for or is all there is, else nftables"
            )
        return backend

    @field_validator("iptables_admin_chain_name")
    @classmethod
    def _chain_can_be_made(cls, name: str) -> str:
        if name and (not _CHAIN.fullmatch(name) or name.lower() in _TAKEN):
            raise ValueError(
                f'"{name}" cannot be the name of the administrator\'s chain: at most 28 letters, digits, "_", "." and '
                '"-" are wanted, a letter first, and no name that the firewall has given to something else'
            )
        return name

    @field_validator("ingress_policy")
    @classmethod
    def _policy_exists(cls, policy: str) -> str:
        if policy not in _POLICIES:
            raise ValueError(f'unknown ingress policy: "{policy}": there are open, same-bridge and isolated')
        return policy

    @property
    def firewall(self) -> Backend:
        """The firewall that is meant."""
        default = Backend()
        return Backend(
            self.backend,
            self.iptables_admin_chain_name or default.admin_chain,
            self.firewalld_zone or default.zone,
        )

    @property
    def isolates(self) -> bool:
        """Whether the policy forbids anything."""
        return self.ingress_policy in ("same-bridge", "isolated")

    def fence(self, result: Result) -> BridgeIsolation:
        """What the policy keeps apart. Raises CniError if no interface of the host comes first in the result."""
        if not result.interfaces:
            raise CniError(
                f'interface needs to be set for ingress policy "{self.ingress_policy}"',
                details='the plugin "bridge" belongs before "firewall" in the chain',
            )
        bridge, *others = result.interfaces
        if bridge.sandbox or not bridge.name:
            raise CniError(
                f'ingress policy "{self.ingress_policy}" needs a bridge of the host, but the first interface of '
                f'prevResult is "{bridge.name}", which is not on the host',
                details="what a container sends past the host's forwarding cannot be kept from it there",
            )
        ports = tuple(interface.name for interface in others if not interface.sandbox)
        return BridgeIsolation(bridge.name, ports, _versions(result), strict=self.ingress_policy == "isolated")


class Firewall(Plugin[FirewallConfig]):
    """The plugin; its methods tell in which order things happen."""

    config = FirewallConfig
    versions = ("0.4.0", "1.0.0", "1.1.0")

    def add(self, cni: Attachment[FirewallConfig]) -> Result:
        """Let the addresses of the previous result through, and put up the fence that the policy asks for."""
        conf, result = cni.config, _prev_result(cni)
        fence = conf.fence(result) if conf.isolates else None
        cni.host.create_forward_rules(_addresses(result), cni.owner, conf.firewall)
        if fence:
            cni.host.create_isolation(fence, cni.owner, conf.firewall)
        return result

    def check(self, cni: Attachment[FirewallConfig]) -> None:
        """See that the addresses are let through, and that the fence stands."""
        conf, result = cni.config, _prev_result(cni)
        cni.host.expect_forward_rules(_addresses(result), cni.owner, conf.firewall)
        if conf.isolates:
            cni.host.expect_isolation(conf.fence(result), cni.owner, conf.firewall)

    def delete(self, cni: Attachment[FirewallConfig]) -> None:
        """Let the addresses through no more, and take down the fence if nobody else is behind it."""
        result = cni.prev_result
        cni.host.delete_forward_rules(cni.owner, cni.config.firewall, _addresses(result) if result else None)
        cni.host.delete_isolation(cni.owner, _fence_to_leave(cni.config, result))

    def status(self, cni: Network[FirewallConfig]) -> None:
        """Ready if the firewall works."""
        cni.config.firewall.probe(cni.host)

    def gc(self, cni: Network[FirewallConfig]) -> None:
        """Remove what attachments that are gone have in any firewall."""
        cni.host.delete_forward_rules(cni.stale, cni.config.firewall)
        cni.host.delete_unregistered_forward_rules(cni.unused_addresses)
        cni.host.delete_isolation(cni.stale)


def _prev_result(cni: Attachment[FirewallConfig]) -> Result:
    if cni.prev_result is None:
        raise CniError(
            "missing prevResult from earlier plugin",
            details='"firewall" makes no interface: it belongs into a chain, after a plugin that does',
        )
    return cni.prev_result


def _addresses(result: Result) -> list[Address]:
    """The addresses of the result, each once."""
    return list(dict.fromkeys(ip.address.ip for ip in result.ips))


def _versions(result: Result) -> frozenset[int]:
    return frozenset(ip.address.version for ip in result.ips)


def _fence_to_leave(conf: FirewallConfig, result: Result | None) -> BridgeIsolation | None:
    """The fence as far as the result tells it, whatever the policy may be by now."""
    try:
        return conf.fence(result) if result else None
    except CniError:
        return None
