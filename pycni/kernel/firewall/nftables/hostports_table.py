"""The table of host ports: where mappings are elements, and the rules, which are few and never change.

map hostports4 { tcp . 8080 : 10.1.0.2 . 80 }                     a port of every address of the host
map hostip_hostports4 { 192.0.2.1 . tcp . 8081 : 10.1.0.2 . 80 }  a port of one
map more_hostports4 { tcp . 8080 : 10.2.0.2 . 80 }                the same port by the container's second interface
set hairpin4 { "cni0" . 0.0.0.0 . tcp . 8080 }                    whose answers would not pass the host: masqueraded
set masqueraded4 { 0.0.0.0 . tcp . 8080 }                         masqueraded from wherever they come
map localnets { "veth3f9c…" : "localnet-cni0" }                   who is reached from 127.0.0.1, by which interface
set publishers { "veth3f9c…" }                                    which attachments have any of this, and how much
"""

from pycni.kernel.firewall.nftables.elements import Table

NAME = "inet pycni"
CHAIN = "inet", "pycni", "hostports"  # if it is there, all is
WORD, ANY = {4: "ip", 6: "ip6"}, {4: "0.0.0.0", 6: "::"}  # noqa: S104 - nobody binds to them
MARK = "meta mark set meta mark | 0x2000"


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
    word, here = WORD[version], f"{WORD[version]} daddr"
    port, every = "meta l4proto . th dport", f"{here} & {ANY[version]}"
    places = [(more, address) for more in ("", "more_") for address in (here, every)]
    rules = (
        *(f"iifname . {address} . {port} @{more}hairpin{version} {MARK}" for more, address in places),
        *(f"{address} . {port} @{more}masqueraded{version} {MARK}" for more, address in places),
        f"dnat {word} to {here} . {port} map @hostip_hostports{version}",
        f"dnat {word} to {here} . {port} map @more_hostip_hostports{version}",
        f"meta nfproto ipv{version} dnat {word} to {port} map @hostports{version}",
        f"meta nfproto ipv{version} dnat {word} to {port} map @more_hostports{version}",
    )
    return "".join(f"add rule {NAME} hostports {rule}\n" for rule in rules)


PLACES = tuple(
    f"{more}{place}{version}"
    for version in (4, 6)
    for more in ("", "more_")
    for place in ("hostports", "hostip_hostports", "hairpin", "masqueraded")
)
# Only what is sent to an address of the host's own is translated (CVE-2025-67499), and never ::1, whose packets cannot
# leave the host. The mark is the Go plugin's; it does not outlive the masquerading. All others come first, at -100:
# what of ours the Go plugin's DEL has left, because it knows no such table, is not in the way of its next container.
TABLE = Table(
    NAME,
    f"""
table {NAME} {{{_maps(4)}{_maps(6)}
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
flush chain {NAME} hostports
flush chain {NAME} hostport-prerouting
flush chain {NAME} hostport-output
flush chain {NAME} hostport-postrouting
flush chain {NAME} martians
add rule {NAME} hostport-prerouting fib daddr type local jump hostports
add rule {NAME} hostport-output fib daddr type local jump hostports
add rule {NAME} hostports ip6 daddr ::1 return
add rule {NAME} hostports jump hostport-conditions
{_translations(4)}{_translations(6)}
add rule {NAME} hostport-postrouting meta mark & 0x2000 == 0x2000 meta mark set meta mark & 0xffffdfff masquerade
add rule {NAME} hostport-postrouting ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade
add rule {NAME} martians iifname @guarded ip saddr 127.0.0.0/8 drop
add rule {NAME} martians iifname @guarded ip daddr 127.0.0.0/8 drop
""",
    (*PLACES, "localnets", "publishers"),
)
# How many rules each chain has, and how many jump there; last the one that others jump to.
STATIC = {
    chain: (TABLE.script.count(f"add rule {NAME} {chain} "), TABLE.script.count(f"jump {chain}\n"))
    for chain in ("hostport-prerouting", "hostport-output", "hostport-postrouting", "martians", "hostports")
}
