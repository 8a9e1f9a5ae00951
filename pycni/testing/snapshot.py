"""The state of a network namespace as a set of lines, for comparison."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycni.testing.topology import Host, Netns

_COMMANDS = {
    "addresses": "ip -j -d addr show",
    "routes -4": "ip -j -4 route show table all",
    "routes -6": "ip -j -6 route show table all",
    "rules -4": "ip -j -4 rule show",
    "rules -6": "ip -j -6 rule show",
    "qdiscs": "tc -j qdisc show",
    # By the nft program: how libnftables prints rules of iptables depends on what the process has printed before.
    "nftables": "nft list ruleset || :",
    "tables -4": "cat /proc/thread-self/net/ip_tables_names || :",
    "tables -6": "cat /proc/thread-self/net/ip6_tables_names || :",
}
_OWNERS_HEADER = 128  # bytes before the records in host-local's owner cache
_SEPARATOR = "-- next output --"
_COUNTERS = re.compile(r"counter packets \d+ bytes \d+ | \[\d+:\d+\]$")


def of_namespace(netns: Netns) -> set[str]:
    """Return links, addresses, routes, rules, queueing disciplines, and rules of nftables and legacy iptables."""
    outputs = _outputs(netns)
    lines = set()
    for link in _parsed(outputs["addresses"]):
        addresses = link.pop("addr_info", [])
        shown = {"ifname", "address", "ifalias", "master"}
        kind = link.get("linkinfo", {}).get("info_kind", "")
        flags = ",".join(flag for flag in ("UP", "PROMISC", "ALLMULTI") if flag in link["flags"])
        lines.add(f"link {kind} {flags} {json.dumps({k: v for k, v in link.items() if k in shown}, sort_keys=True)}")
        lines |= {
            f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
            for address in addresses
            if address.get("local") and address.get("scope") not in ("link", "host")  # which the kernel assigns
        }
    for family in ("-4", "-6"):
        for route in _parsed(outputs[f"routes {family}"]):
            if route.get("protocol") != "kernel":
                lines.add(f"route {family} {json.dumps(route, sort_keys=True)}")
        lines |= {f"rule {family} {json.dumps(r, sort_keys=True)}" for r in _parsed(outputs[f"rules {family}"])}
    lines |= {f"qdisc {json.dumps(q, sort_keys=True)}" for q in _parsed(outputs["qdiscs"]) if q["handle"] != "0:"}
    return lines | _nftables(outputs["nftables"]) | _legacy_iptables(netns, outputs)


def _outputs(netns: Netns) -> dict[str, str]:
    """Return the output of each command. One shell runs them all, since starting processes may be slow."""
    output = netns.run(f" && echo '{_SEPARATOR}' && ".join(_COMMANDS.values()))
    return dict(zip(_COMMANDS, output.split(f"{_SEPARATOR}\n"), strict=True))


def _parsed(output: str) -> Any:
    return json.loads(output or "[]")


def of_host(host: Host) -> set[str]:
    """Return the state of the host's network namespace and the files that plugins keep there."""
    return of_namespace(host) | set(_files(host.state))


def _nftables(ruleset: str) -> set[str]:
    lines, place = set(), ""
    for line in ruleset.splitlines():
        text = _COUNTERS.sub("", line.strip())
        if text.startswith(("table", "chain", "set", "map")):
            place = text
            lines.add(f"nft {text}")
            continue
        for part in text.removeprefix("elements = {").removesuffix("}").split('",'):
            lines.add(f"nft {place} {part.strip()}")
    return {line for line in lines if not line.endswith(("}", " "))}


def _legacy_iptables(netns: Netns, outputs: dict[str, str]) -> set[str]:
    """Return the rules of legacy iptables. Those of iptables-nft are in the nftables ruleset."""
    lines = set()
    for family, tables in (("ip", outputs["tables -4"]), ("ip6", outputs["tables -6"])):
        for table in tables.split():
            listing = netns.run(f"{family}tables-legacy-save -t {table}")
            lines |= {
                f"{family}tables {table} {_COUNTERS.sub('', line)}" for line in listing.splitlines() if line[0] in ":-"
            }
    return lines


def _files(directory: Path) -> Iterator[str]:
    """Yield a line per file, with its content."""
    for path in directory.rglob("*"):
        # host-local's last reserved address outlives attachments, and locks are never removed.
        if not path.is_file() or path.name == "lock" or path.name.startswith("last_reserved_ip."):
            continue
        name, content = path.relative_to(directory), path.read_bytes()
        if path.suffix == ".owners":  # host-local's owner cache: a line per record
            records = content[_OWNERS_HEADER:].split(b"\0")
            yield from (f"file {name} {record.decode(errors='replace')}" for record in records if record)
        else:
            yield f"file {name} {content.decode(errors='replace')}"
