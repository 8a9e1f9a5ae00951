"""Spoof checks that the Go plugin made, in table `bridge nat`: two chains an interface, and a jump from its port.

chain PREROUTING { iifname "veth1a2b3c4d" jump cni-br-iface-c1-eth0 comment "macspoofchk-c1-eth0" }
chain cni-br-iface-c1-eth0 { jump cni-br-iface-c1-eth0-mac }
chain cni-br-iface-c1-eth0-mac { ether saddr 02:00:5e:00:53:01 return; drop }

They tell container and interface, but not the network. So GC removes those of ports that are gone.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pycni.kernel.firewall.nftables.go_chain import GoChain
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import opened
from pycni.kernel.link.link_state import all_states
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale

_FAMILY, _TABLE, _BASE = "bridge", "nat", "PREROUTING"
_JUMPS = GoChain(f"{_FAMILY} {_TABLE}", _BASE)
_CHAIN, _COMMENT = "cni-br-iface-", "macspoofchk-"


def holds(netns: NetnsHandle, port: str, mac: str, owner: Owner) -> bool:
    """Whether the port may send from this hardware address alone."""
    name = _name(owner)
    if not _has_chain(netns, _CHAIN + name):
        return False
    jumps = {(_port(rule), _target(rule)) for rule in _rules(netns, _BASE, name)}
    inner = {_target(rule) for rule in _rules(netns, _CHAIN + name, name)}
    last = [list(_words(rule["expr"])) for rule in _rules(netns, f"{_CHAIN}{name}-mac", name)]
    return (port, _CHAIN + name) in jumps and f"{_CHAIN}{name}-mac" in inner and last == [[mac, "return"], ["drop"]]


def delete(netns: NetnsHandle, owner: Owner | Stale) -> None:
    """Remove the owner's; table and base chain stay, as the Go plugin leaves them."""
    names = [_name(owner)] if isinstance(owner, Owner) else _those_of_no_port(netns)
    for name in names:
        if _has_chain(netns, _CHAIN + name):
            _JUMPS.delete(netns, (_COMMENT + name).__eq__)
            chains = [f"chain {_FAMILY} {_TABLE} {_CHAIN}{name}{end}" for end in ("", "-mac")]
            nft = opened(netns)  # "add": one of them may be missing
            nft.run("\n".join(f"{verb} {chain}" for verb in ("add", "flush", "delete") for chain in chains))


def _those_of_no_port(netns: NetnsHandle) -> list[str]:
    if not _has_chain(netns, _BASE):
        return []
    ports = {rule["comment"].removeprefix(_COMMENT): _port(rule) for rule in _JUMPS.rules(netns, _is_comment)}
    there = {state.name for state in all_states(netns)}  # only now: a port is older than its rule
    return [name for name, port in ports.items() if port and port not in there]


def _has_chain(netns: NetnsHandle, chain: str) -> bool:
    return lookup(netns).has_chain(_FAMILY, _TABLE, chain)


def _rules(netns: NetnsHandle, chain: str, name: str) -> list[dict[str, Any]]:
    return GoChain(f"{_FAMILY} {_TABLE}", chain).rules(netns, (_COMMENT + name).__eq__)


def _is_comment(text: str) -> bool:
    return text.startswith(_COMMENT)


def _name(owner: Owner) -> str:
    return f"{owner.container_id}-{owner.ifname}"


def _port(rule: dict[str, Any]) -> str:
    return next(iter(_words(rule["expr"])), "")


def _target(rule: dict[str, Any]) -> str:
    return next((part["jump"]["target"] for part in rule["expr"] if "jump" in part), "")


def _words(expressions: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What a rule compares with, and its verdict if that leads nowhere else."""
    for part in expressions:
        if "match" in part:
            yield str(part["match"]["right"])
        else:
            yield from part.keys() & {"return", "drop"}
