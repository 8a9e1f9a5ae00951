"""Host ports that the Go plugin made by nftables, in tables `ip cni_hostport` and `ip6 cni_hostport`: only removed.

Its rules tell the container alone, not the network. So of a container on several networks, those go that lead to the
addresses of the attachment.
"""

import logging
from collections.abc import Collection, Iterator
from typing import Any

from pycni.kernel.door import Door
from pycni.kernel.nftables.lookup import lookup
from pycni.kernel.nftables.nft import opened

log = logging.getLogger(__name__)

_TABLE = "cni_hostport"


def delete(door: Door, container_id: str, addresses: Collection[str]) -> bool:
    """Remove the container's rules, if addresses are given those that lead there; says whether there were any."""
    with lookup(door) as kernel:
        families = [family for family in ("ip", "ip6") if kernel.has_table(family, _TABLE)]
    if not families:
        return False
    with opened(door) as nft:
        doomed = [
            f"delete rule {family} {_TABLE} {rule['chain']} handle {rule['handle']}"
            for family in families
            for rule in _rules(nft.listing(f"list table {family} {_TABLE}"), container_id, addresses)
        ]
        if doomed:
            nft.run("\n".join(doomed))
    return bool(doomed)


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
