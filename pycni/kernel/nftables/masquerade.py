"""Masquerading by nftables: an attachment is one map element per address, the rules are few and never change.

map masquerade4 { 10.1.0.2 : goto subnet-10.1.0.0/24 }     who, and which rules hold for it
chain subnet-10.1.0.0/24                                   its own subnet and multicast stay as they are
"""

from collections.abc import Iterable, Sequence

from pycni.kernel.door import Door
from pycni.kernel.nftables.elements import Element, Table
from pycni.kernel.nftables.foreign import ForeignChain
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_WORD = {4: "ip", 6: "ip6"}

_TABLE = Table(
    "inet pycni",
    """
table inet pycni {
    map masquerade4 { type ipv4_addr : verdict; }
    map masquerade6 { type ipv6_addr : verdict; }
    chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
}
flush chain inet pycni postrouting
add rule inet pycni postrouting ip saddr vmap @masquerade4
add rule inet pycni postrouting ip6 saddr vmap @masquerade6
""",
    ("masquerade4", "masquerade6"),
    kept_chains=("subnet-",),
)
_GO_CHAIN = ForeignChain("inet cni_plugins_masquerade", "masq_checks")  # its comments begin with the owner's key too


def create(door: Door, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Hide these addresses behind the host's, towards everything outside their own subnets."""
    words = ", ".join(str(cidr.ip) for cidr in cidrs)
    _TABLE.create(door, _elements(cidrs), owner, what=f"masquerade {words}")


def expect(door: Door, cidrs: Sequence[Cidr], owner: Owner) -> None:
    """Raise CniError unless these addresses are masqueraded, by us or by what a Go plugin made."""
    try:
        _TABLE.expect(door, _elements(cidrs), owner, what="masquerading")
    except CniError:
        if not {str(cidr.ip) for cidr in cidrs} <= _masqueraded_by_go(door, owner):
            raise


def delete(door: Door, owner: Owner | Stale, cidrs: Sequence[Cidr] | None = None) -> None:
    """Masquerade the owner's addresses no more; which they are is looked up unless `cidrs` says it."""
    _TABLE.delete(door, owner, None if cidrs is None else _elements(cidrs))
    _GO_CHAIN.delete(door, owner.owns)


def _masqueraded_by_go(door: Door, owner: Owner) -> set[str]:
    """The source addresses of the rules that a Go plugin made for the owner."""
    matches = [part.get("match", {}) for rule in _GO_CHAIN.rules(door, owner.owns) for part in rule["expr"]]
    return {match["right"] for match in matches if match.get("left", {}).get("payload", {}).get("field") == "saddr"}


def _elements(cidrs: Iterable[Cidr]) -> list[Element]:
    return [
        Element(f"masquerade{cidr.version}", str(cidr.ip), f"goto {_chain(cidr)}", rules=_rules(cidr)) for cidr in cidrs
    ]


def _chain(cidr: Cidr) -> str:
    return f"subnet-{cidr.network}".replace(":", "-")


def _rules(cidr: Cidr) -> str:
    chain, word = _chain(cidr), _WORD[cidr.version]
    return f"""
add chain inet pycni {chain}
flush chain inet pycni {chain}
add rule inet pycni {chain} {word} daddr {cidr.network} return
add rule inet pycni {chain} {word} daddr {_MULTICAST[cidr.version]} return
add rule inet pycni {chain} masquerade
"""
