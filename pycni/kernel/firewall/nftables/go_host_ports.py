"""Host ports that the Go plugin created with nftables, in tables `ip cni_hostport` and `ip6 cni_hostport`.

The comment of a rule is the container id; it does not tell the network. For a container on several networks, only the
rules that map to the attachment's addresses are deleted.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from pycni.kernel.firewall.families import FAMILY_NAMES
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import opened
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, port_in_use
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import SelectUnused
from pycni.protocol.address import Cidr, parse_ip

log = logging.getLogger(__name__)

_TABLE = "cni_hostport"
_CHAINS = ("hostports", "hostip_hostports")


def holds(netns: NetnsHandle, container_id: str, ports: HostPorts) -> bool:
    """Return whether rules of the Go plugin map every one of these ports to the container."""
    families = _families(netns)
    if not families:
        return False
    addresses = [str(target.ip) for target in ports.targets]
    nft = opened(netns)
    listings = [nft.listing(f"list table {family} {_TABLE}") for family in families]
    actual = {_mapping(rule["expr"]) for listing in listings for rule in _rules(listing, container_id, addresses)}
    wanted = {
        (str(mapping.one_address or ""), mapping.protocol, mapping.host_port, str(target.ip), mapping.container_port)
        for target, mappings in ports.by_family()
        for mapping in mappings
    }
    return wanted <= actual


def ensure_free(netns: NetnsHandle, ports: HostPorts, container_id: str) -> None:
    """Raise CniError, code 11, if one of these ports is mapped to another container.

    A mapping to one of this container's own addresses is stale, since IPAM has assigned the address to it. All rules of
    the previous container for that address are deleted.
    """
    families = _families(netns, with_ports=True)
    for target, mappings in ports.by_family():
        family = FAMILY_NAMES[target.version]
        if family not in families or ports.conditions.get(target.version):
            continue
        nft = opened(netns)
        listed = nft.listing(f"list table {family} {_TABLE}")
        stale = dict.fromkeys(_stale_containers(listed, target, mappings, container_id))
        rules = [rule for container in stale for rule in _rules(listed, container, [str(target.ip)])]
        if rules:
            nft.run(_removal(family, rules))


def delete(netns: NetnsHandle, container_id: str, addresses: Collection[str]) -> None:
    """Delete the container's rules that map to these addresses, or all of its rules if there are none."""
    _delete(netns, lambda listing: _rules(listing, container_id, addresses))


def delete_unused(netns: NetnsHandle, select_unused: SelectUnused) -> None:
    """Delete the rules of any container that map to addresses which `select_unused` returns."""

    def select(listing: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        rules = [(rule, _target(rule["expr"])) for rule in (item["rule"] for item in listing if "rule" in item)]
        targets = {parse_ip(target) for _, target in rules if target}
        unused = set(map(str, select_unused(targets))) if targets else set()
        return (rule for rule, target in rules if target in unused)

    _delete(netns, select)


def _stale_containers(
    listed: list[dict[str, Any]], target: Cidr, mappings: Collection[PortMapping], container_id: str
) -> Iterator[str]:
    """Yield the containers whose rules map one of the ports to our address.

    Raises CniError if a rule of another container maps one of the ports to another address.
    """
    for rule in (item["rule"] for item in listed if "rule" in item):
        host_ip, *port, address, _ = _mapping(rule["expr"])
        container = str(rule.get("comment", ""))
        if container == container_id or not address:
            continue
        for mapping in mappings:
            if port == [mapping.protocol, mapping.host_port] and _overlap(host_ip, str(mapping.one_address or "")):
                if address != str(target.ip):
                    raise port_in_use(str(mapping), f"container {container}")
                yield container


def _delete(netns: NetnsHandle, select: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]) -> None:
    """Delete the rules that `select` returns for the listing of a table."""
    families = _families(netns)
    if not families:
        return
    nft = opened(netns)
    listings = {family: nft.listing(f"list table {family} {_TABLE}") for family in families}
    removals = [_removal(family, select(listed)) for family, listed in listings.items()]
    if any(removals):
        nft.run("".join(removals))


def _removal(family: str, rules: Iterable[dict[str, Any]]) -> str:
    return "".join(f"delete rule {family} {_TABLE} {rule['chain']} handle {rule['handle']}\n" for rule in rules)


def _families(netns: NetnsHandle, *, with_ports: bool = False) -> list[str]:
    """Return the families that have the Go plugin's table; with `with_ports`, only those with rules for ports."""
    kernel = lookup(netns)
    families = kernel.families_with_table(FAMILY_NAMES.values(), _TABLE)
    if not with_ports:
        return families
    return [family for family in families if any(kernel.count_rules(family, _TABLE, chain) for chain in _CHAINS)]


def _overlap(one: str, other: str) -> bool:
    """Return whether the same packet can match both host addresses; an empty string is any address."""
    return not one or not other or one == other


def _rules(listing: list[dict[str, Any]], container_id: str, addresses: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the container's rules that map to one of the addresses, or all if `addresses` is empty.

    Without addresses, rules that map to several addresses are left alone: they may belong to several networks.
    """
    rules = [item["rule"] for item in listing if "rule" in item]
    own = [(rule, _target(rule["expr"])) for rule in rules if rule.get("comment") == container_id]
    targets = {target for _, target in own}
    if not addresses and len(targets) > 1:
        log.warning(
            "host port rules of container %s for %s are kept: they do not tell which network they belong to",
            container_id,
            ", ".join(sorted(targets)),
        )
        return
    for rule, target in own:
        if not addresses or target in addresses:
            yield rule


def _target(expressions: list[dict[str, Any]]) -> str:
    """Return the container's address in a rule: the DNAT target, or the destination that a masquerade rule matches."""
    target = ""
    for expression in expressions:
        if "dnat" in expression:
            return str(expression["dnat"]["addr"])
        match = expression.get("match", {})
        if match.get("left", {}).get("payload", {}).get("field") == "daddr":
            target = str(match["right"])
    return target


def _mapping(expressions: list[dict[str, Any]]) -> tuple[str, str, int, str, int]:
    """Return host address, protocol, host port, container address and container port of a rule.

    The host address is empty if the rule matches all of them, the container address if the rule translates nothing.
    """
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
