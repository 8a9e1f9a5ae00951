"""firewall: allow forwarding from and to the addresses of an attachment, and isolate bridges or containers.

containers      host                                                                      uplink
a, b ── br0 ──┬─ from a: accepted · to a: established connections accepted ── routing ──  eth0
c    ── br1 ──┘  br0 ✗ br1 (same-bridge, isolated) · a ✗ b (isolated)
"""

import re

from pycni.sdk import (
    Address,
    Attachment,
    BridgeIsolation,
    CniError,
    FirewallSettings,
    NetConf,
    Network,
    Plugin,
    Result,
    field_validator,
)

_POLICIES = ("", "open", "same-bridge", "isolated")
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,27}")  # valid in both iptables and nftables
_RESERVED = {"input", "forward", "output", "fence", "accept", "drop", "reject", "return", "queue", "cni-forward"}


class FirewallConfig(NetConf):
    """Configuration of firewall. README.md describes the options."""

    backend: str = ""
    iptables_admin_chain_name: str = ""
    firewalld_zone: str = ""
    ingress_policy: str = ""

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        if backend not in ("", "nftables", "iptables", "firewalld"):
            raise ValueError(
                f'unknown firewall backend "{backend}": use nftables, iptables or firewalld. Without "backend", '
                "firewalld is used if it is running, iptables if its FORWARD policy is DROP or nftables is missing, "
                "else nftables"
            )
        return backend

    @field_validator("iptables_admin_chain_name")
    @classmethod
    def _chain_name_is_valid(cls, name: str) -> str:
        if name and (not _CHAIN.fullmatch(name) or name.lower() in _RESERVED):
            raise ValueError(
                f'"{name}" cannot be the name of the administrator\'s chain: use a letter, then at most 27 letters, '
                'digits, "_", "." and "-", and no name that the firewall already uses'
            )
        return name

    @field_validator("ingress_policy")
    @classmethod
    def _policy_exists(cls, policy: str) -> str:
        if policy not in _POLICIES:
            raise ValueError(f'unknown ingress policy: "{policy}": use open, same-bridge or isolated')
        return policy

    @property
    def settings(self) -> FirewallSettings:
        """Return the backend, the administrator's chain and the firewalld zone, with their defaults."""
        default = FirewallSettings()
        return FirewallSettings(
            self.backend,
            self.iptables_admin_chain_name or default.admin_chain,
            self.firewalld_zone or default.zone,
        )

    @property
    def isolates(self) -> bool:
        """Return whether the policy isolates bridges or containers."""
        return self.ingress_policy in ("same-bridge", "isolated")

    def isolation(self, result: Result) -> BridgeIsolation:
        """Return the bridge and ports to isolate. Raise CniError unless the first interface is one of the host."""
        if not result.interfaces:
            raise CniError(
                f'interface needs to be set for ingress policy "{self.ingress_policy}"',
                details='put the plugin "bridge" before "firewall" in the list',
            )
        bridge, *others = result.interfaces
        if bridge.sandbox or not bridge.name:
            raise CniError(
                f'ingress policy "{self.ingress_policy}" needs a bridge of the host, but the first interface of '
                f'prevResult is "{bridge.name}", which is not on the host',
                details="only traffic that the host forwards can be isolated: use a plugin such as bridge",
            )
        ports = tuple(interface.name for interface in others if not interface.sandbox)
        return BridgeIsolation(bridge.name, ports, _versions(result), strict=self.ingress_policy == "isolated")


class Firewall(Plugin[FirewallConfig]):
    """The firewall plugin."""

    config = FirewallConfig
    versions = ("0.4.0", "1.0.0", "1.1.0")

    def add(self, cni: Attachment[FirewallConfig]) -> Result:
        """Accept forwarded packets from and to the addresses of prevResult, and apply the ingress policy."""
        conf, result = cni.config, _prev_result(cni)
        isolation = conf.isolation(result) if conf.isolates else None  # raises before any change
        cni.host.firewall.forward_rules.create(_addresses(result), cni.owner, conf.settings)
        if isolation:
            cni.host.firewall.isolation.create(isolation, cni.owner, conf.settings)
        return result

    def check(self, cni: Attachment[FirewallConfig]) -> None:
        """Raise CniError unless the forward rules of every address and the isolation exist."""
        conf, result = cni.config, _prev_result(cni)
        cni.host.firewall.forward_rules.expect(_addresses(result), cni.owner, conf.settings)
        if conf.isolates:
            cni.host.firewall.isolation.expect(conf.isolation(result), cni.owner, conf.settings)

    def delete(self, cni: Attachment[FirewallConfig]) -> None:
        """Remove the forward rules of the attachment, and the isolation if no other attachment needs it."""
        result = cni.prev_result
        cni.host.firewall.forward_rules.delete(cni.owner, cni.config.settings, _addresses(result) if result else None)
        cni.host.firewall.isolation.delete(cni.owner, _find_isolation(cni.config, result))

    def status(self, cni: Network[FirewallConfig]) -> None:
        """Raise CniError if the firewall backend does not work."""
        cni.host.firewall.forward_rules.probe(cni.config.settings)

    def gc(self, cni: Network[FirewallConfig]) -> None:
        """Remove the forward rules and isolation of stale attachments, in all backends."""
        cni.host.firewall.forward_rules.delete(cni.stale, cni.config.settings)
        cni.host.firewall.forward_rules.delete_unowned(cni.unused_addresses)
        cni.host.firewall.isolation.delete(cni.stale)


def _prev_result(cni: Attachment[FirewallConfig]) -> Result:
    if cni.prev_result is None:
        raise CniError(
            "missing prevResult from earlier plugin",
            details='put "firewall" into a list, after a plugin that creates an interface',
        )
    return cni.prev_result


def _addresses(result: Result) -> list[Address]:
    """Return the addresses of the result without duplicates."""
    return list(dict.fromkeys(ip.address.ip for ip in result.ips))


def _versions(result: Result) -> frozenset[int]:
    return frozenset(ip.address.version for ip in result.ips)


def _find_isolation(conf: FirewallConfig, result: Result | None) -> BridgeIsolation | None:
    """Return the isolation that the result implies, whatever the policy is now. None if there is none."""
    try:
        return conf.isolation(result) if result else None
    except CniError:
        return None
