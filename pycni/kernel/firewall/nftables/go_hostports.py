"""Host ports that the Go plugin made by nftables, in tables `ip cni_hostport` and `ip6 cni_hostport`.

Its rules tell the container alone, not the network. So of a container on several networks, those go that lead to the
addresses of the attachment.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import opened
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, taken
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Abandoned
from pycni.protocol.address import Cidr, parse_ip

log = logging.getLogger(__name__)

_TABLE = "cni_hostport"
_CHAINS = ("hostports", "hostip_hostports")


def holds(netns: NetnsHandle, container_id: str, ports: HostPorts) -> bool:
    """Whether every one of these ports leads to the container by a rule of its own."""
    families = _families(netns)
    if not families:
        return False
    addresses = [str(target.ip) for target in ports.targets]
    nft = opened(netns)
    listings = [nft.listing(f"list table {family} {_TABLE}") for family in families]
    made = {_mapping(rule["expr"]) for listing in listings for rule in _rules(listing, container_id, addresses)}
    wanted = {
        (str(mapping.one_address or ""), mapping.protocol, mapping.host_port, str(target.ip), mapping.container_port)
        for target, mappings in ports.by_family()
        for mapping in mappings
    }
    return wanted <= made


def ensure_free(netns: NetnsHandle, ports: HostPorts, container_id: str) -> None:
    """Raise CniError, code 11, if one of these ports leads to another container.

    What leads to our own address is a leftover, since IPAM has given it to us: that container's rules go.
    """
    families = _families(netns, of_ports=True)
    for target, mappings in ports.by_family():
        family = "ip" if target.version == 4 else "ip6"
        if family not in families or ports.conditions.get(target.version):
            continue
        nft = opened(netns)
        listed = nft.listing(f"list table {family} {_TABLE}")
        leftovers = dict.fromkeys(_rivals(listed, target, mappings, container_id))
        rules = [rule for rival in leftovers for rule in _rules(listed, rival, [str(target.ip)])]
        if rules:
            nft.run(_removal(family, rules))


def _rivals(
    listed: list[dict[str, Any]], target: Cidr, mappings: Collection[PortMapping], container_id: str
) -> Iterator[str]:
    """The containers that have had our address, and have one of the ports. Raises CniError for any other's port."""
    for rule in (item["rule"] for item in listed if "rule" in item):
        host_ip, *port, leads_to, _ = _mapping(rule["expr"])
        holder = str(rule.get("comment", ""))
        if holder == container_id or not leads_to:
            continue
        for mapping in mappings:
            if port == [mapping.protocol, mapping.host_port] and _meet(host_ip, str(mapping.one_address or "")):
                if leads_to != str(target.ip):
                    raise taken(str(mapping), f"container {holder}")
                yield holder


def delete(netns: NetnsHandle, container_id: str, addresses: Collection[str]) -> None:
    """Remove the container's rules, if addresses are given those that lead there."""
    _delete(netns, lambda listing: _rules(listing, container_id, addresses))


def delete_abandoned(netns: NetnsHandle, abandoned: Abandoned) -> None:
    """Remove the rules that lead to abandoned addresses, whichever container they tell."""

    def doomed(listing: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        leading = [(rule, _target(rule["expr"])) for rule in (item["rule"] for item in listing if "rule" in item)]
        targets = {parse_ip(target) for _, target in leading if target}
        gone = set(map(str, abandoned(targets))) if targets else set()
        return (rule for rule, target in leading if target in gone)

    _delete(netns, doomed)


def _delete(netns: NetnsHandle, doomed: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]) -> None:
    """Remove the rules that are `doomed` of those that a listing has."""
    families = _families(netns)
    if not families:
        return
    nft = opened(netns)
    listings = {family: nft.listing(f"list table {family} {_TABLE}") for family in families}
    removals = [_removal(family, doomed(listed)) for family, listed in listings.items()]
    if any(removals):
        nft.run("".join(removals))


def _removal(family: str, rules: Iterable[dict[str, Any]]) -> str:
    return "".join(f"delete rule {family} {_TABLE} {rule['chain']} handle {rule['handle']}\n" for rule in rules)


def _families(netns: NetnsHandle, *, of_ports: bool = False) -> list[str]:
    """The families that have the table, or in it even ports."""
    kernel = lookup(netns)
    families = kernel.tables(("ip", "ip6"), _TABLE)
    return [family for family in families if not of_ports or any(kernel.rules(family, _TABLE, c) for c in _CHAINS)]


def _meet(one: str, other: str) -> bool:
    """Whether ports of these addresses are in each other's way; empty is every address."""
    return not one or not other or one == other


def _rules(listing: list[dict[str, Any]], container_id: str, addresses: Collection[str]) -> Iterator[dict[str, Any]]:
    rules = [item["rule"] for item in listing if "rule" in item]
    leading = [(rule, _target(rule["expr"])) for rule in rules if rule.get("comment") == container_id]
    targets = {target for _, target in leading}
    if not addresses and len(targets) > 1:
        log.warning("rules of %s for %s stay: which network's they are is not known", container_id, sorted(targets))
        return
    for rule, target in leading:
        if not addresses or target in addresses:
            yield rule


def _target(expressions: list[dict[str, Any]]) -> str:
    """The container's address in a rule: where it leads, or whose answers it masquerades."""
    target = ""
    for expression in expressions:
        if "dnat" in expression:
            return str(expression["dnat"]["addr"])
        match = expression.get("match", {})
        if match.get("left", {}).get("payload", {}).get("field") == "daddr":
            target = str(match["right"])
    return target


def _mapping(expressions: list[dict[str, Any]]) -> tuple[str, str, int, str, int]:
    """What a rule translates: the host's address if it names one, protocol and port; where to: address and port."""
    host_ip, protocol, host_port, target, port = "", "", 0, "", 0
    for expression in expressions:
        payload = expression.get("match", {}).get("left", {}).get("payload", {})
        match payload.get("field"):
            case "daddr":
                host_ip = str(expression["match"]["right"])
            case "dport":
                protocol, host_port = payload["protocol"], expression["match"]["right"]
        if "dnat" in expression:
            target, port = str(expression["dnat"]["addr"]), expression["dnat"].get("port", 0)
    return host_ip, protocol, host_port, target, port
