"""Settings of the firewall plugin: the backend, and the bridge to isolate."""

from dataclasses import dataclass

ADMIN_CHAIN, ZONE = "CNI-ADMIN", "trusted"


@dataclass(frozen=True)
class FirewallSettings:
    """Settings of the backend for forward rules and isolation.

    backend: "nftables", "iptables" or "firewalld"; "" lets `backend.resolve_settings` choose one.
    admin_chain: the chain with the administrator's rules, evaluated before the rules of attachments (nftables and
        iptables only).
    zone: the firewalld zone to which container addresses are added as sources.
    """

    backend: str = ""
    admin_chain: str = ADMIN_CHAIN
    zone: str = ZONE


@dataclass(frozen=True)
class BridgeIsolation:
    """A bridge whose containers cannot reach containers on other isolated bridges.

    bridge: name of the bridge on the host.
    ports: names of the attachment's own bridge ports.
    versions: IP versions (4, 6) of the attachment's addresses.
    strict: also isolate `ports` from the other ports of the same bridge (ingress policy "isolated").
    """

    bridge: str
    ports: tuple[str, ...]
    versions: frozenset[int]
    strict: bool = False
