"""Links: what the kernel says about one, and what can be done with it."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Self

from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle, new_route_socket
from pycni.kernel.scheduling import BackgroundRunner, background_runner, yield_turn
from pycni.protocol.errors import CniError

UP, PROMISC, ALLMULTI = 0x1, 0x100, 0x200  # IFF_UP, IFF_PROMISC, IFF_ALLMULTI
_SKIP_STATISTICS = ("IFLA_EXT_MASK", 8)
_MISSING = frozenset({errno.ENODEV, errno.ENXIO, errno.ERANGE})  # the last: no link has a name that long
_ATTRIBUTES = {"mtu": "IFLA_MTU", "mac": "IFLA_ADDRESS", "alias": "IFLA_IFALIAS", "txqlen": "IFLA_TXQLEN"}
_FLAGS = {"up": UP, "promisc": PROMISC, "allmulti": ALLMULTI}
_AF_BRIDGE = 7
_TIME_TO_BEGIN = 0.0002  # seconds
MODES = {
    "macvlan": {1: "private", 2: "vepa", 4: "bridge", 8: "passthru"},
    "ipvlan": {0: "l2", 1: "l3", 2: "l3s"},
}
# A port carries the IPv6 of others and has none of its own. A thousand with routes to ff00::/8 make the kernel look at
# all of them for each packet that a container sends to everybody, and whenever a link goes.
_PORT = {"accept_ra": "0", "disable_ipv6": "1"}
Value = int | str | bool | None  # of a property of a link; None leaves it as it is
_VLAN_PVID, _VLAN_UNTAGGED = 2, 4


def random_mac() -> str:
    """A random unicast address that no manufacturer owns."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Turn the kernel's refusal into a CNI error that starts with what failed."""
    try:
        yield
    except NetlinkError as error:
        raise CniError(f"{failure}: {error}") from None


class LinkState(NamedTuple):
    """A link as the kernel described it at one moment."""

    index: int  # type: ignore[assignment] # it hides the method of tuples
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    up: bool = False
    promisc: bool = False
    allmulti: bool = False
    txqlen: int = 0  # packets that wait for the device, at most
    master: int = 0
    alias: str = ""
    operstate: str = ""
    peer: int = 0  # index of a veth's other end, or of what the link stands on, in the namespace where that is
    vlan_filtering: bool = False
    hairpin: bool = False
    isolated: bool = False
    mode: str = ""  # of a macvlan or an ipvlan, in their words
    broadcast_queue: int | None = None  # of a macvlan: how many broadcasts may wait
    vlan: int | None = None  # the id of a vlan
    table: int | None = None  # by which the members of a vrf are routed
    user: int | None = None  # who may open a tap; None is root alone, if there is no group either
    group: int | None = None
    multi_queue: bool = False

    @classmethod
    def of(cls, message: Any) -> Self:
        """Read an RTM_NEWLINK."""
        attribute, flags = message.get_attr, message["flags"]
        info = partial(message.get_nested, "IFLA_LINKINFO")
        kind, details = info("IFLA_INFO_KIND") or "", {}
        # What only links of that kind say: attributes of the same numbers mean something else for others.
        for name, (own, read) in _OWN.get(kind, {}).items():
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


def _itself(value: Any) -> Any:
    return value


# By the kind of a link: what of LinkState it alone has, where the kernel says it, and how that is read.
_OWN: Mapping[str, Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "bridge": {"vlan_filtering": ("IFLA_BR_VLAN_FILTERING", bool)},
    "macvlan": {
        "mode": ("IFLA_MACVLAN_MODE", lambda number: MODES["macvlan"].get(number, "")),
        "broadcast_queue": ("IFLA_MACVLAN_BC_QUEUE_LEN", _itself),
    },
    "ipvlan": {"mode": ("IFLA_IPVLAN_MODE", lambda number: MODES["ipvlan"].get(number, ""))},
    "vlan": {"vlan": ("IFLA_VLAN_ID", _itself)},
    "vrf": {"table": ("IFLA_VRF_TABLE", _itself)},
    "tun": {
        "user": ("IFLA_TUN_OWNER", _itself),
        "group": ("IFLA_TUN_GROUP", _itself),
        "multi_queue": ("IFLA_TUN_MULTI_QUEUE", bool),
    },
}
_PORT_FLAGS = {"hairpin": "IFLA_BRPORT_MODE", "isolated": "IFLA_BRPORT_ISOLATED"}


def other_end(state: LinkState, name: str, mac: str) -> LinkState:
    """What there is to know of the other end of a new cable, by what the kernel has said of this one."""
    return LinkState(state.peer, name, kind="veth", mac=mac, mtu=state.mtu, peer=state.index)


def _phrase(key: str, value: object) -> str:
    if key == "up":
        return "up" if value else "down"
    return f"{key} {value}"


def find_state(netns: NetnsHandle, name: str) -> LinkState | None:
    """What the kernel says about the link called `name`; None if there is none."""
    return _answer(netns, question(name))


def find_state_at(netns: NetnsHandle, index: int) -> LinkState | None:
    """What the kernel says about the link with this index; None if there is none."""
    return _answer(netns, link_message(rtnetlink.GETLINK, [_SKIP_STATISTICS], index=index))


def _answer(netns: NetnsHandle, asked: rtnetlink.Message) -> LinkState | None:
    try:
        (answer,) = netns.netlink.request(asked)
    except NetlinkError as error:
        if error.errno in _MISSING:
            return None
        raise
    return LinkState.of(answer)


def question(name: str) -> rtnetlink.Message:
    """The request for one link by its name."""
    return link_message(rtnetlink.GETLINK, [("IFLA_IFNAME", name), _SKIP_STATISTICS])


def find(netns: NetnsHandle, name: str) -> "Link | None":
    """Return the link called `name`, or None if there is none."""
    state = find_state(netns, name)
    return None if state is None else Link(netns, state)


def get(netns: NetnsHandle, name: str) -> "Link":
    """Return the link called `name`. Raises CniError if there is none."""
    link = find(netns, name)
    if link is None:
        raise missing(name)
    return link


def missing(name: str) -> CniError:
    """Return the error for a link that does not exist."""
    return CniError(f'link "{name}" not found')


def refresh(netns: NetnsHandle, links: Sequence["Link"]) -> None:
    """Ask the kernel again about all of these links of a namespace. Raises CniError if one is gone."""
    for link, outcome in zip(links, netns.netlink.outcomes(*[question(link.name) for link in links]), strict=True):
        learn(link, outcome)


def learn(link: "Link", outcome: list[Any] | NetlinkError) -> None:
    """Take what the kernel has answered to the `question` about the link for its state. Raises CniError."""
    link.state = LinkState.of(_answered(link, outcome))


def learn_whether_up(link: "Link", outcome: list[Any] | NetlinkError) -> None:
    """Take from it only whether the link is up and carries frames: what else there is has not changed since."""
    answer = _answered(link, outcome)
    link.state = link.state._replace(up=bool(answer["flags"] & UP), operstate=answer.get_attr("IFLA_OPERSTATE") or "")


def see_whether_up(netns: NetnsHandle, links: Sequence["Link"]) -> None:
    """Ask the kernel whether these links of a namespace are up and carry frames. Raises CniError if one is gone."""
    for link, outcome in zip(links, netns.netlink.outcomes(*[question(link.name) for link in links]), strict=True):
        learn_whether_up(link, outcome)


def _answered(link: "Link", outcome: list[Any] | NetlinkError) -> Any:
    if not isinstance(outcome, NetlinkError):
        return outcome[0]
    if outcome.errno in _MISSING:
        raise CniError(f'link "{link.name}" is gone')
    raise outcome


def all_states(netns: NetnsHandle) -> list[LinkState]:
    """Every link of the namespace."""
    return [LinkState.of(answer) for answer in netns.netlink.dump(link_message(rtnetlink.GETLINK, [_SKIP_STATISTICS]))]


def delete(netns: NetnsHandle, name: str) -> bool:
    """Remove the link; says whether there was one. A veth takes its peer along."""
    finish = background_runner()
    try:
        with yield_turn(briefly=True):
            if finish is not None:
                return _delete_until_it_is_gone(netns, name, finish)
            netns.netlink.request(link_message(rtnetlink.DELLINK, [("IFLA_IFNAME", name)]))
    except NetlinkError as error:
        if error.errno in _MISSING:
            return False
        raise CniError(f'cannot delete link "{name}": {error}') from None
    return True


def _delete_until_it_is_gone(netns: NetnsHandle, name: str, finish: BackgroundRunner) -> bool:
    """Have it deleted, and wait until it is gone: nobody sees it any more, in either namespace, and its name is free.

    The kernel holds whoever deletes a link for some 20 ms more, until nothing of it is in use (netdev_run_todo).
    """
    state = find_state(netns, name)
    if state is None:
        return False
    deletion, own = link_message(rtnetlink.DELLINK, [], index=state.index), new_route_socket(netns)

    def delete() -> None:
        with closing(own):  # the door may be closed before the end
            own.request(deletion)

    deleting, pause = finish(delete), _TIME_TO_BEGIN
    while True:
        with suppress(TimeoutError):
            deleting.result(pause)
            return True
        if find_state_at(netns, state.index) is None:  # the kernel answers between two changes of links, not amid one
            return True
        pause *= 2


class Link:
    """A link in a namespace, with its state as it was last read."""

    def __init__(self, netns: NetnsHandle, state: LinkState) -> None:
        self.netns = netns
        self.state = state

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """Its name."""
        return self.state.name

    @property
    def index(self) -> int:
        """Its index in the namespace."""
        return self.state.index

    @property
    def mac(self) -> str:
        """Its hardware address."""
        return self.state.mac

    def refresh(self) -> LinkState:
        """Ask the kernel again. Raises CniError if the link is gone."""
        refresh(self.netns, [self])
        return self.state

    def set(self, **wanted: Value) -> None:
        """Change mtu, mac, up, promisc, allmulti, txqlen or alias to what is given, from what `state` says.

        It is put back if the call fails.
        """
        self._set(wanted, undone=True)

    def ensure(self, **wanted: Value) -> None:
        """The same for a link that is shared: what was changed stays."""
        self._set(wanted, undone=False)

    def _set(self, wanted: Mapping[str, Value], *, undone: bool) -> None:
        before = self.state
        changes = {key: value for key, value in wanted.items() if value not in (None, getattr(before, key))}
        if not changes:
            return
        old = {key: getattr(before, key) for key in changes}
        words = ", ".join(_phrase(key, value) for key, value in changes.items())

        def do() -> None:
            try:
                self._apply(changes)
            except CniError:
                if undone:
                    with suppress(CniError):
                        self._apply(old)  # what the kernel had accepted before it refused
                raise

        self.netns.journal.change(f"set {self.name} {words}", do, (lambda: self._apply(old)) if undone else None)
        if changes.keys() <= _FLAGS.keys():
            flags: dict[str, Any] = changes
            self.state = before._replace(**flags)
        else:
            self.refresh()

    def _apply(self, values: Mapping[str, Value]) -> None:
        """Set each property by a message of its own: of one that it refuses the kernel may do half."""
        outcomes = self.netns.netlink.outcomes(*[self.setting(key, value) for key, value in values.items()])
        for (key, value), outcome in zip(values.items(), outcomes, strict=True):
            if not isinstance(outcome, NetlinkError):
                continue
            with explained(f"cannot set {self.name} {_phrase(key, value)}"):
                if key != "mac" or outcome.errno != errno.EBUSY:
                    raise outcome
                # Some devices take another address only while they are down, and lose their routes by it.
                down, up = self.setting("up", False), self.setting("up", True)
                self.netns.netlink.request(down, self.setting(key, value), up)

    def plug_into(self, bridge: "Link", *, hairpin: bool, isolated: bool) -> str:
        """Make it a port of the bridge and set it up; the other end of the cable is down. Returns the bridge's MAC."""
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, key): value for key, value in _PORT.items()})
        messages = [
            link_message(rtnetlink.NEWLINK, [("IFLA_MASTER", bridge.index)], index=self.index, flags=UP, change=UP)
        ]
        if hairpin or isolated:  # a new port is neither
            flags = [("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_ISOLATED", int(isolated))]
            port = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": flags})]
            messages.append(link_message(rtnetlink.NEWLINK, [("IFLA_LINKINFO", {"attrs": port})], index=self.index))
        (answer,) = self._change(f"plug {self.name} into {bridge.name}", [*messages, question(bridge.name)])
        return str(answer.get_attr("IFLA_ADDRESS"))

    def refuse_router_advertisements(self) -> None:
        """Let nobody on the link steer the host that owns it (CVE-2020-10749); to be said before it is up."""
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, "accept_ra"): "0"})

    def skip_duplicate_address_detection(self) -> None:
        """Let its link-local address, made of a random MAC, be usable at once; to be said before it is up.

        Until it is, the host asks for no neighbour on behalf of those it forwards for: IPv6 would not reach containers.
        """
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, "accept_dad"): "0"})

    def set_port_vlans(self, *, untagged: int, tagged: tuple[int, ...], keep_default: bool) -> None:
        """The VLANs of a bridge port: `untagged` is its own, `tagged` are its trunk."""
        present = [] if keep_default else [vlan for vlan in self.port_vlans() if vlan != untagged]
        removals = [self._port_vlan(rtnetlink.DELLINK, vlan, 0) for vlan in present]
        additions = [self._port_vlan(rtnetlink.SETLINK, untagged, _VLAN_PVID | _VLAN_UNTAGGED)]
        additions += [self._port_vlan(rtnetlink.SETLINK, vlan, 0) for vlan in tagged if vlan != untagged]
        self._change(f"put {self.name} into VLAN {untagged}", removals + additions)

    def port_vlans(self) -> dict[int, int]:
        """The VLANs of a bridge port and their flags (2: its own, 4: untagged)."""
        question = link_message(rtnetlink.GETLINK, [("IFLA_EXT_MASK", 2)], family=_AF_BRIDGE)
        for answer in self.netns.netlink.dump(question):
            if answer["index"] == self.index:
                spec = answer.get_attr("IFLA_AF_SPEC")
                infos = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else []
                return {info["vid"]: info["flags"] for info in infos}
        return {}

    def port_vlan_changes(self, wanted: Mapping[int, int]) -> list[rtnetlink.Message]:
        """The requests that give the bridge port these VLANs, with their flags, and no others."""
        present = self.port_vlans()
        removals = [self._port_vlan(rtnetlink.DELLINK, vlan, 0) for vlan in present if vlan not in wanted]
        missing = {vlan: flags for vlan, flags in wanted.items() if present.get(vlan) != flags}
        return removals + [self._port_vlan(rtnetlink.SETLINK, vlan, flags) for vlan, flags in missing.items()]

    def port_settings(self, names: AbstractSet[str]) -> dict[str, int]:
        """Those of its settings as a bridge port that have these names in the kernel."""
        (answer,) = self.netns.netlink.request(question(self.name))
        settings = answer.in_full().get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        return {name: value for name, value in (settings["attrs"] if settings else ()) if name in names}

    def expect_port_vlans(self, wanted: AbstractSet[int]) -> None:
        """Raise CniError unless the bridge port is in all these VLANs."""
        if missing := wanted - self.port_vlans().keys():
            raise CniError(f"{self} has lost VLAN {min(missing)}")

    def expect(self, **wanted: object) -> None:
        """Raise CniError for the first property that is not as `wanted`, as far as `state` (see there) says."""
        for name, value in wanted.items():
            found = getattr(self.state, name)
            if found != value:
                raise CniError(f"{self.name} should have {name} {value}, but has {found}")

    def _port_vlan(self, kind: int, vlan: int, flags: int) -> rtnetlink.Message:
        info = ("IFLA_BRIDGE_VLAN_INFO", {"vid": vlan, "flags": flags})
        return link_message(kind, [("IFLA_AF_SPEC", {"attrs": [info]})], family=_AF_BRIDGE, index=self.index)

    def setting(self, key: str, value: Value) -> rtnetlink.Message:
        """The request that changes one of what `set` changes."""
        if key in _ATTRIBUTES:
            return link_message(rtnetlink.NEWLINK, [(_ATTRIBUTES[key], value)], index=self.index)
        flag = _FLAGS[key]
        return link_message(rtnetlink.NEWLINK, [], index=self.index, flags=flag if value else 0, change=flag)

    def _change(self, what: str, messages: list[rtnetlink.Message]) -> list[Any]:
        def send() -> list[Any]:
            with explained(f"cannot {what}"):
                return self.netns.netlink.request(*messages)

        return self.netns.journal.change(what, send)
