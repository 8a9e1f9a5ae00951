"""Creation of links that belong to one attachment and carry its label: macvlan, ipvlan, vlan, dummy and tap."""

from collections.abc import Callable, Mapping
from typing import Any

from pycni.kernel.link.deletion import delete
from pycni.kernel.link.link import Link
from pycni.kernel.link.link_state import MODES, LinkState, find_state_at, get_request
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import explain_errors, link_message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner

_SETTINGS = {"vlan": "IFLA_VLAN_ID", "broadcast_queue": "IFLA_MACVLAN_BC_QUEUE_LEN"}


def size_and_mac(mtu: int, mac: str) -> list[tuple[str, Any]]:
    """Return the attributes for an MTU in bytes and a MAC; 0 and "" leave them to the kernel."""
    return ([("IFLA_MTU", mtu)] if mtu else []) + ([("IFLA_ADDRESS", mac)] if mac else [])


def link_info(kind: str, settings: Mapping[str, object]) -> tuple[str, Any]:
    """Return the attribute IFLA_LINKINFO for a link of this kind, with settings named as in LinkState."""
    data = [
        (f"IFLA_{kind.upper()}_MODE", {word: number for number, word in MODES[kind].items()}[str(value)])
        if key == "mode"
        else (_SETTINGS[key], value)
        for key, value in settings.items()
    ]
    info = [("IFLA_INFO_KIND", kind), *([("IFLA_INFO_DATA", {"attrs": data})] if data else [])]
    return "IFLA_LINKINFO", {"attrs": info}


def create_labelled(
    netns: NetnsHandle, name: str, owner: Owner, words: str, create: Callable[[], None], late: Attributes = ()
) -> Link:
    """Create a link under a temporary name, then set its final name and its label in one request. Return the link.

    `create` creates the link as `owner.host_ifname` in `netns`. So no link without a label ever has the final name, and
    the final name may be one that exists in the namespace of the master, such as eth0: the kernel would reject that for
    a new link. `late` are attributes that the kernel accepts only after creation.
    """
    temporary = owner.host_ifname

    index = 0  # of the new link

    def do() -> Link:
        nonlocal index
        delete(netns, temporary)  # left behind by an ADD of the same attachment that was killed
        create()
        (state,) = netns.netlink.request(get_request(temporary))
        index = state["index"]
        changes = [link_message(rtnetlink.NEWLINK, [each], index=index) for each in late]
        naming = [("IFLA_IFNAME", name), ("IFLA_IFALIAS", owner.label)]
        with explain_errors(f"cannot configure the new link {name}"):
            netns.netlink.request(*changes)
            (state,) = netns.netlink.request(link_message(rtnetlink.NEWLINK, naming, index=index), get_request(name))
        return Link(netns, LinkState.parse(state))

    def undo() -> None:
        delete(netns, temporary)
        created = find_state_at(netns, index) if index else None
        if created is not None:  # not by its final name, which may be that of another link
            delete(netns, created.name)

    return netns.journal.change(f"create {words}", do, undo)
