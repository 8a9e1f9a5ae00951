"""MAC spoof checks of the Go plugin, in table `bridge nat`: two chains per interface, and a jump from its bridge port.

chain PREROUTING { iifname "veth1a2b3c4d" jump cni-br-iface-c1-eth0 comment "macspoofchk-c1-eth0" }
chain cni-br-iface-c1-eth0 { jump cni-br-iface-c1-eth0-mac }
chain cni-br-iface-c1-eth0-mac { ether saddr 02:00:5e:00:53:01 return; drop }

Names and comments contain container id and interface, but not the network. So GC deletes only the chains of ports that
no longer exist.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pycni.kernel.firewall.nftables.go_chain import GoChain
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import opened
from pycni.kernel.link.link_state import all_states
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale

_FAMILY, _TABLE, _BASE_CHAIN = "bridge", "nat", "PREROUTING"
_JUMPS = GoChain(f"{_FAMILY} {_TABLE}", _BASE_CHAIN)
_CHAIN_PREFIX, _COMMENT_PREFIX = "cni-br-iface-", "macspoofchk-"


def holds(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> bool:
    """Return whether the Go plugin's rules allow the bridge port to send only from `mac`."""
    name = _name(owner)
    chain = _CHAIN_PREFIX + name
    if not _has_chain(netns, chain):
        return False
    jumps = {(_port(rule), _jump_target(rule)) for rule in _rules(netns, _BASE_CHAIN, name)}
    inner = {_jump_target(rule) for rule in _rules(netns, chain, name)}
    last = [list(_words(rule["expr"])) for rule in _rules(netns, f"{chain}-mac", name)]
    return (port, chain) in jumps and f"{chain}-mac" in inner and last == [[mac, "return"], ["drop"]]


def delete(netns: NetnsHandle, owner: Owner | Stale) -> None:
    """Delete the owner's chains and jump; for `Stale`, those of all ports that no longer exist.

    The table and its base chain stay, as after a DEL of the Go plugin.
    """
    names = [_name(owner)] if isinstance(owner, Owner) else _names_without_port(netns)
    for name in names:
        if _has_chain(netns, _CHAIN_PREFIX + name):
            _JUMPS.delete(netns, (_COMMENT_PREFIX + name).__eq__)
            chains = [f"chain {_FAMILY} {_TABLE} {_CHAIN_PREFIX}{name}{suffix}" for suffix in ("", "-mac")]
            nft = opened(netns)  # one of the chains may be missing: "add" creates it, so "delete" cannot fail
            nft.run("\n".join(f"{verb} {chain}" for verb in ("add", "flush", "delete") for chain in chains))


def _names_without_port(netns: NetnsHandle) -> list[str]:
    if not _has_chain(netns, _BASE_CHAIN):
        return []
    jumps = _JUMPS.rules(netns, lambda comment: comment.startswith(_COMMENT_PREFIX))
    ports = {rule["comment"].removeprefix(_COMMENT_PREFIX): _port(rule) for rule in jumps}
    # Listed after the rules, because a port exists before its rule does.
    existing = {state.name for state in all_states(netns)}
    return [name for name, port in ports.items() if port and port not in existing]


def _has_chain(netns: NetnsHandle, chain: str) -> bool:
    return lookup(netns).has_chain(_FAMILY, _TABLE, chain)


def _rules(netns: NetnsHandle, chain: str, name: str) -> list[dict[str, Any]]:
    return GoChain(f"{_FAMILY} {_TABLE}", chain).rules(netns, (_COMMENT_PREFIX + name).__eq__)


def _name(owner: Owner) -> str:
    return f"{owner.container_id}-{owner.ifname}"


def _port(rule: dict[str, Any]) -> str:
    return next(iter(_words(rule["expr"])), "")


def _jump_target(rule: dict[str, Any]) -> str:
    return next((part["jump"]["target"] for part in rule["expr"] if "jump" in part), "")


def _words(expressions: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the values that a rule compares with, and its verdict if that is "return" or "drop"."""
    for part in expressions:
        if "match" in part:
            yield str(part["match"]["right"])
        else:
            yield from part.keys() & {"return", "drop"}
