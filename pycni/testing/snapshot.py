"""What is in a namespace, as a set of lines that can be compared."""

import json
import re
from pathlib import Path

from pycni.testing.world import Host, Netns

_COUNTERS = re.compile(r"counter packets \d+ bytes \d+ | \[\d+:\d+\]$")


def of_namespace(netns: Netns) -> set[str]:
    """Its links, addresses, routes, rules, queueing disciplines, nftables and (legacy) iptables."""
    lines = set()
    for link in netns.json("ip -j -d addr show"):
        addresses = link.pop("addr_info", [])
        kept = {"ifname", "address", "ifalias", "master"}
        kind = link.get("linkinfo", {}).get("info_kind", "")
        flags = ",".join(flag for flag in ("UP", "PROMISC", "ALLMULTI") if flag in link["flags"])
        lines.add(f"link {kind} {flags} {json.dumps({k: v for k, v in link.items() if k in kept}, sort_keys=True)}")
        lines |= {
            f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
            for address in addresses
            if address.get("local") and address.get("scope") not in ("link", "host")  # those are the kernel's
        }
    for family in ("-4", "-6"):
        for route in netns.json(f"ip -j {family} route show table all"):
            if route.get("protocol") != "kernel":
                lines.add(f"route {family} {json.dumps(route, sort_keys=True)}")
        lines |= {f"rule {family} {json.dumps(r, sort_keys=True)}" for r in netns.json(f"ip -j {family} rule show")}
    lines |= {f"qdisc {json.dumps(q, sort_keys=True)}" for q in netns.json("tc -j qdisc show") if q["handle"] != "0:"}
    return lines | _nftables(netns) | _legacy_iptables(netns)


def of_host(host: Host) -> set[str]:
    """The same of a host, with the files that plugins keep there."""
    return of_namespace(host) | {f"file {path.relative_to(host.state)} {_content(path)}" for path in _files(host.state)}


def _nftables(netns: Netns) -> set[str]:
    lines, place = set(), ""
    # By a process of its own: how libnftables writes rules of iptables depends on what it has written before.
    ruleset = netns.run("nft list ruleset", check=False)
    for line in ruleset.splitlines():
        text = _COUNTERS.sub("", line.strip())
        if text.startswith(("table", "chain", "set", "map")):
            place = text
            lines.add(f"nft {text}")
            continue
        for part in text.removeprefix("elements = {").removesuffix("}").split('",'):
            lines.add(f"nft {place} {part.strip()}")
    return {line for line in lines if not line.endswith(("}", " "))}


def _legacy_iptables(netns: Netns) -> set[str]:
    """What the legacy variant has in the tables that are in use; the other one's rules are in nftables."""
    lines = set()
    for family in ("ip", "ip6"):
        for table in netns.run(f"cat /proc/thread-self/net/{family}_tables_names", check=False).split():
            listing = netns.run(f"{family}tables-legacy-save -t {table}")
            lines |= {
                f"{family}tables {table} {_COUNTERS.sub('', line)}" for line in listing.splitlines() if line[0] in ":-"
            }
    return lines


def _files(directory: Path) -> list[Path]:
    # Which address was handed out last, and when, is remembered beyond every attachment; locks are never removed.
    paths = [path for path in directory.rglob("*") if path.is_file()] if directory.is_dir() else []
    lasting = {"lock", "seal"}
    return [path for path in paths if path.name not in lasting and not path.name.startswith("last_reserved_ip.")]


def _content(path: Path) -> str:
    return path.read_text(errors="replace")
