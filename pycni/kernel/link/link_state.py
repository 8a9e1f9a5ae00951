"""The state of a link as the kernel reports it, and the requests that read it."""

import errno
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, link_message
from pycni.kernel.netns.handle import NetnsHandle

UP, PROMISC, ALLMULTI = 0x1, 0x100, 0x200  # IFF_UP, IFF_PROMISC, IFF_ALLMULTI
MODES = {  # of macvlan and ipvlan links: the kernel's number and its name
    "macvlan": {1: "private", 2: "vepa", 4: "bridge", 8: "passthru"},
    "ipvlan": {0: "l2", 1: "l3", 2: "l3s"},
}
NO_SUCH_LINK = frozenset({errno.ENODEV, errno.ENXIO, errno.ERANGE})  # ERANGE: the name is longer than any link's
_SKIP_STATISTICS = ("IFLA_EXT_MASK", 8)


class LinkState(NamedTuple):
    """A link as the kernel reported it at one moment."""

    index: int  # type: ignore[assignment] # it hides the method of tuples
    name: str
    kind: str = ""  # empty for physical devices
    mac: str = ""
    mtu: int = 0  # bytes
    up: bool = False
    promisc: bool = False
    allmulti: bool = False
    txqlen: int = 0  # length of the transmit queue in packets
    master: int = 0  # index of the bridge, bond or VRF that the link belongs to
    alias: str = ""
    operstate: str = ""
    peer: int = 0  # IFLA_LINK: index of the veth peer or of the lower link, in that link's namespace
    vlan_filtering: bool = False  # of a bridge
    hairpin: bool = False  # of a bridge port
    isolated: bool = False  # of a bridge port
    mode: str = ""  # of a macvlan or ipvlan link, see MODES
    broadcast_queue: int | None = None  # of a macvlan link: length of its broadcast queue
    vlan: int | None = None  # the VLAN id of a vlan link
    table: int | None = None  # the routing table of a VRF
    user: int | None = None  # who may open a tap; only root if user and group are None
    group: int | None = None
    multi_queue: bool = False  # of a tap

    @classmethod
    def parse(cls, message: Any) -> Self:
        """Return the state that an RTM_NEWLINK message describes."""
        attribute, flags = message.get_attr, message["flags"]
        info = partial(message.get_nested, "IFLA_LINKINFO")
        kind, details = info("IFLA_INFO_KIND") or "", {}
        # The numbers of these attributes mean something else for each kind of link.
        for name, (own, read) in _KIND_ATTRIBUTES.get(kind, {}).items():
            details[name] = read(info("IFLA_INFO_DATA", own))
        if info("IFLA_INFO_SLAVE_KIND") == "bridge":
            for name, own in _PORT_FLAGS.items():
                details[name] = bool(info("IFLA_INFO_SLAVE_DATA", own))
        return cls(
            index=message["index"],
            name=attribute("IFLA_IFNAME"),
            kind=kind,
            mac=attribute("IFLA_ADDRESS") or "",
            mtu=attribute("IFLA_MTU") or 0,
            up=bool(flags & UP),
            promisc=bool(flags & PROMISC),
            allmulti=bool(flags & ALLMULTI),
            txqlen=attribute("IFLA_TXQLEN") or 0,
            master=attribute("IFLA_MASTER") or 0,
            alias=attribute("IFLA_IFALIAS") or "",
            operstate=attribute("IFLA_OPERSTATE") or "",
            peer=attribute("IFLA_LINK") or 0,
            **details,
        )

    def new_peer(self, name: str, mac: str) -> "LinkState":
        """Return the state of the other end of this veth pair, which has just been created with this name and MAC."""
        return LinkState(self.peer, name, kind="veth", mac=mac, mtu=self.mtu, peer=self.index)


def _unchanged(value: Any) -> Any:
    return value


# By kind of link: the fields of LinkState that only this kind has, their attribute, and how to read it.
_KIND_ATTRIBUTES: Mapping[str, Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "bridge": {"vlan_filtering": ("IFLA_BR_VLAN_FILTERING", bool)},
    "macvlan": {
        "mode": ("IFLA_MACVLAN_MODE", lambda number: MODES["macvlan"].get(number, "")),
        "broadcast_queue": ("IFLA_MACVLAN_BC_QUEUE_LEN", _unchanged),
    },
    "ipvlan": {"mode": ("IFLA_IPVLAN_MODE", lambda number: MODES["ipvlan"].get(number, ""))},
    "vlan": {"vlan": ("IFLA_VLAN_ID", _unchanged)},
    "vrf": {"table": ("IFLA_VRF_TABLE", _unchanged)},
    "tun": {
        "user": ("IFLA_TUN_OWNER", _unchanged),
        "group": ("IFLA_TUN_GROUP", _unchanged),
        "multi_queue": ("IFLA_TUN_MULTI_QUEUE", bool),
    },
}
_PORT_FLAGS = {"hairpin": "IFLA_BRPORT_MODE", "isolated": "IFLA_BRPORT_ISOLATED"}


def get_request(name: str) -> Message:
    """Return the request for the state of the link called `name`."""
    return link_message(rtnetlink.GETLINK, [("IFLA_IFNAME", name), _SKIP_STATISTICS])


def find_state(netns: NetnsHandle, name: str) -> LinkState | None:
    """Return the state of the link called `name`, or None if there is none."""
    return _find(netns, get_request(name))


def find_state_at(netns: NetnsHandle, index: int) -> LinkState | None:
    """Return the state of the link with this index, or None if there is none."""
    return _find(netns, link_message(rtnetlink.GETLINK, [_SKIP_STATISTICS], index=index))


def _find(netns: NetnsHandle, request: Message) -> LinkState | None:
    try:
        (answer,) = netns.netlink.request(request)
    except NetlinkError as error:
        if error.errno in NO_SUCH_LINK:
            return None
        raise
    return LinkState.parse(answer)


def all_states(netns: NetnsHandle) -> list[LinkState]:
    """Return the states of all links in the namespace."""
    request = link_message(rtnetlink.GETLINK, [_SKIP_STATISTICS])
    return [LinkState.parse(answer) for answer in netns.netlink.dump(request)]
