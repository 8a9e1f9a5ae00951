"""Lookup of single nftables objects by name or key."""

import pytest

from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.testing import Host

TABLE = """
table inet pycni {
    map ports6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
    set links { type ifname . ipv4_addr . inet_proto . inet_service; }
    map users { type ifname : counter; }
    counter of-br0 { }
    chain busy { ip daddr 10.0.0.1 drop; ip daddr 10.0.0.2 drop; }
}
add element inet pycni ports6 { 2001:db8::1 . udp . 65535 comment "first, and long" : fd00::2 . 80 }
add element inet pycni links { "br0" . 0.0.0.0 . sctp . 1 comment "second" }
add element inet pycni links { "br1" . 10.0.0.1 . tcp . 1 }
add element inet pycni users { "veth1" : "of-br0" }
"""


@pytest.fixture(autouse=True)
def table(host: Host) -> None:
    host.run(f"nft -f - <<'EOF'\n{TABLE}EOF")


def test_element_has_comment_data_and_object(host: Host) -> None:
    kernel = lookup(host.netns)
    port = kernel.element("inet pycni", "ports6", "2001:db8::1 . udp . 65535")
    assert port is not None
    assert (port.comment, port.address_and_port) == ("first, and long", "fd00::2 . 80")
    link = kernel.element("inet pycni", "links", '"br0" . 0.0.0.0 . sctp . 1')
    assert link is not None
    assert (link.comment, link.data) == ("second", b"")
    user = kernel.element("inet pycni", "users", '"veth1"')
    assert user is not None
    assert (user.comment, user.object) == ("", "of-br0")


@pytest.mark.parametrize(
    ("table", "place", "key"),
    [
        ("inet pycni", "ports6", "2001:db8::2 . udp . 65535"),
        ("inet pycni", "nowhere", '"veth1"'),
        ("inet other", "users", '"veth1"'),
        ("ip pycni", "users", '"veth1"'),
    ],
)
def test_missing_elements_are_none(host: Host, table: str, place: str, key: str) -> None:
    kernel = lookup(host.netns)
    assert kernel.element(table, place, key) is None


def test_tables_chains_and_rules_are_found(host: Host) -> None:
    kernel = lookup(host.netns)
    assert kernel.families_with_table(["inet", "ip6"], "pycni") == ["inet"]
    assert kernel.has_chain("inet", "pycni", "busy")
    assert not kernel.has_chain("inet", "pycni", "idle")
    assert not kernel.has_chain("inet", "pycni", "longer than any".ljust(256, "-"))
    assert kernel.count_rules("inet", "pycni", "busy") == 2
    assert kernel.count_rules("inet", "pycni", "idle") == 0


def test_elements_are_found_by_the_end_of_their_key(host: Host) -> None:
    others = ", ".join(f"2001:db8::{i:x} . tcp . {i + 1} : fd00::2 . 80" for i in range(3000))
    host.run(f"nft -f - <<'EOF'\nadd element inet pycni ports6 {{ {others} }}\nEOF")
    host.run('nft add element inet pycni ports6 { 2001:db8::f . tcp . 7 comment "a" : fd00::3 . 80 }')
    kernel = lookup(host.netns)
    found = kernel.elements_with_key_suffix("inet pycni", "ports6", "tcp . 7")
    assert sorted(one.address_and_port for one in found) == ["fd00::2 . 80", "fd00::3 . 80"]
    assert sorted(one.comment for one in found) == ["", "a"]
    assert kernel.elements_with_key_suffix("inet pycni", "ports6", "sctp . 7") == []
    assert kernel.elements_with_key_suffix("inet pycni", "nowhere", "tcp . 7") == []
