"""The nftables objects for host ports: maps and sets (the package describes their elements), and static rules."""

from pycni.kernel.firewall.families import FAMILY_NAMES, UNSPECIFIED
from pycni.kernel.firewall.nftables.elements import TABLE, ElementTable

CHAIN = "inet", "pycni", "hostports"  # one transaction creates all objects, so they exist if this chain does
SECONDARY = "more_"  # prefix of the maps and sets of secondary mappings
SET_MARK = "meta mark set meta mark | 0x2000"  # requests masquerading; the Go plugin uses the same bit


def _maps(version: int) -> str:
    address = f"ipv{version}_addr"
    port = "inet_proto . inet_service"
    return f"""
    map hostports{version} {{ type {port} : {address} . inet_service; }}
    map hostip_hostports{version} {{ type {address} . {port} : {address} . inet_service; }}
    map more_hostports{version} {{ type {port} : {address} . inet_service; }}
    map more_hostip_hostports{version} {{ type {address} . {port} : {address} . inet_service; }}
    set hairpin{version} {{ type ifname . {address} . {port}; }}
    set masqueraded{version} {{ type {address} . {port}; }}
    set more_hairpin{version} {{ type ifname . {address} . {port}; }}
    set more_masqueraded{version} {{ type {address} . {port}; }}
"""


def _translations(version: int) -> str:
    word, daddr = FAMILY_NAMES[version], f"{FAMILY_NAMES[version]} daddr"
    port, unspecified = "meta l4proto . th dport", f"{daddr} & {UNSPECIFIED[version]}"
    lookups = [(more, address) for more in ("", SECONDARY) for address in (daddr, unspecified)]
    rules = (
        *(f"iifname . {address} . {port} @{more}hairpin{version} {SET_MARK}" for more, address in lookups),
        *(f"{address} . {port} @{more}masqueraded{version} {SET_MARK}" for more, address in lookups),
        f"dnat {word} to {daddr} . {port} map @hostip_hostports{version}",
        f"dnat {word} to {daddr} . {port} map @more_hostip_hostports{version}",
        f"meta nfproto ipv{version} dnat {word} to {port} map @hostports{version}",
        f"meta nfproto ipv{version} dnat {word} to {port} map @more_hostports{version}",
    )
    return "".join(f"add rule {TABLE} hostports {rule}\n" for rule in rules)


MAPPING_SETS = tuple(
    f"{more}{name}{version}"
    for version in (4, 6)
    for more in ("", SECONDARY)
    for name in ("hostports", "hostip_hostports", "hairpin", "masqueraded")
)
# Only packets to the host's own addresses are translated (CVE-2025-67499), and never those to ::1, which cannot leave
# the host. The mark is cleared when a packet is masqueraded. The chains run at priority -99, after those of the Go
# plugin at -100. A DEL by the Go plugin does not remove elements of this table; they must not take precedence over the
# mappings of the next container that the Go plugin attaches.
HOST_PORTS = ElementTable(
    TABLE,
    f"""
table {TABLE} {{{_maps(4)}{_maps(6)}
    map localnets {{ type ifname : counter; }}
    set guarded {{ type ifname; }}
    set publishers {{ type ifname; }}
    chain hostport-conditions {{ }}
    chain hostports {{ }}
    chain hostport-prerouting {{ type nat hook prerouting priority dstnat + 1; policy accept; }}
    chain hostport-output {{ type nat hook output priority -99; policy accept; }}
    chain hostport-postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
    chain martians {{ type filter hook prerouting priority raw; policy accept; }}
}}
flush chain {TABLE} hostports
flush chain {TABLE} hostport-prerouting
flush chain {TABLE} hostport-output
flush chain {TABLE} hostport-postrouting
flush chain {TABLE} martians
add rule {TABLE} hostport-prerouting fib daddr type local jump hostports
add rule {TABLE} hostport-output fib daddr type local jump hostports
add rule {TABLE} hostports ip6 daddr ::1 return
add rule {TABLE} hostports jump hostport-conditions
{_translations(4)}{_translations(6)}
add rule {TABLE} hostport-postrouting meta mark & 0x2000 == 0x2000 meta mark set meta mark & 0xffffdfff masquerade
add rule {TABLE} hostport-postrouting ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade
add rule {TABLE} martians iifname @guarded ip saddr 127.0.0.0/8 drop
add rule {TABLE} martians iifname @guarded ip daddr 127.0.0.0/8 drop
""",
    (*MAPPING_SETS, "localnets", "publishers"),
)
# For each chain, the number of its rules and of rules that jump to it. Their sum is its use count in the kernel. The
# chain that others jump to comes last, so that CHECK reports a chain that has lost its jumps first.
STATIC_CHAINS = {
    chain: (HOST_PORTS.script.count(f"add rule {TABLE} {chain} "), HOST_PORTS.script.count(f"jump {chain}\n"))
    for chain in ("hostport-prerouting", "hostport-output", "hostport-postrouting", "martians", "hostports")
}
