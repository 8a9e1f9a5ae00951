"""Links that a container has to itself: macvlan, ipvlan and vlan, which stand on a master, and dummy."""

import errno
from collections.abc import Callable, Mapping

from pycni.kernel.link import links, routes
from pycni.kernel.link.links import MODES, Link, LinkState, Value, explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError, Code

_NEW = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
_NO_UNICAST = "01:00:00:00:00:00"
_SETTINGS = {"vlan": "IFLA_VLAN_ID", "broadcast_queue": "IFLA_MACVLAN_BC_QUEUE_LEN"}


def create(
    container: NetnsHandle,
    name: str,
    kind: str,
    owner: Owner,
    *,
    master: Link | None,
    attributes: Attributes,
    settings: Mapping[str, Value],
) -> Link:
    """Make a link of the kind, still down; `settings` are what only its kind has, by the names of LinkState."""
    netns = container if master is None else master.netns
    whole = [("IFLA_IFNAME", owner.host_ifname), *attributes, ("IFLA_LINKINFO", {"attrs": _info(kind, settings)})]
    whole += [("IFLA_LINK", master.index)] if master is not None else []
    whole += [("IFLA_NET_NS_FD", container.fd)] if netns is not container else []
    words = f"{kind} {name}" + (f" on {master}" if master is not None else "")

    def make() -> None:
        with explained(f"cannot create {words}"):
            netns.netlink.request(link_message(rtnetlink.NEWLINK, whole, how=_NEW))

    return make_and_label(container, name, owner, words, make)


def make_and_label(
    container: NetnsHandle, name: str, owner: Owner, words: str, make: Callable[[], None], late: Attributes = ()
) -> Link:
    """Make a link under its owner's name, then give it the name that it shall have, and a label, at once.

    So nothing unlabelled ever has that name; and the kernel takes no name for a new link that one beside its master
    has, such as eth0. What is set `late` is what the link cannot be born with.
    """
    born = owner.host_ifname

    def do() -> Link:
        links.delete(container, born)  # left by an ADD of the same attachment that was killed half-way
        make()
        try:
            return _finish(container, born, name, owner, late)
        except BaseException:
            links.delete(container, born)
            raise

    return container.journal.change(f"create {words}", do, lambda: links.delete(container, name))


def _info(kind: str, settings: Mapping[str, Value]) -> Attributes:
    data = [
        (f"IFLA_{kind.upper()}_MODE", {word: number for number, word in MODES[kind].items()}[str(value)])
        if key == "mode"
        else (_SETTINGS[key], value)
        for key, value in settings.items()
    ]
    return [("IFLA_INFO_KIND", kind), *([("IFLA_INFO_DATA", {"attrs": data})] if data else [])]


def _finish(container: NetnsHandle, born: str, name: str, owner: Owner, late: Attributes) -> Link:
    (state,) = container.netlink.request(links.question(born))
    changes = [link_message(rtnetlink.NEWLINK, [each], index=state["index"]) for each in late]
    naming = link_message(
        rtnetlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", owner.label)], index=state["index"]
    )
    with explained(f"cannot make {name} of the new link"):
        container.netlink.request(*changes)
        (state,) = container.netlink.request(naming, links.question(name))
    return Link(container, LinkState.of(state))


def probe(netns: NetnsHandle, kind: str) -> None:
    """Raise CniError, code 50, unless the kernel has links of the kind."""
    # Never made: no link has such an address. But the kernel looks for the kind first, and loads its module.
    impossible = [("IFLA_ADDRESS", _NO_UNICAST), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})]
    (outcome,) = netns.netlink.outcomes(link_message(rtnetlink.NEWLINK, impossible, how=_NEW))
    if isinstance(outcome, NetlinkError) and outcome.errno == errno.EOPNOTSUPP:
        raise CniError(
            f"this kernel has no {kind} links",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details=f"the plugin needs the kernel's module for {kind}",
        )


def find_default(netns: NetnsHandle) -> LinkState | None:
    """The link of the default route, IPv4's before IPv6's and the best before the others; None if there is none."""
    found = [(version, metric, index) for version in (4, 6) for metric, index in routes.defaults(netns, version)]
    return links.find_state_at(netns, min(found)[2]) if found else None
