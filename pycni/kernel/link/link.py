"""A link with its state, and what can be changed or checked on it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import TYPE_CHECKING, Any

from pycni.kernel.link.link_state import ALLMULTI, NO_SUCH_LINK, PROMISC, UP, LinkState, find_state, get_request
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors, link_message
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from typing import Unpack

    from pycni.kernel.link.link_settings import LinkChanges, LinkSettings

_ATTRIBUTES = {"mtu": "IFLA_MTU", "mac": "IFLA_ADDRESS", "alias": "IFLA_IFALIAS", "txqlen": "IFLA_TXQLEN"}
_FLAGS = {"up": UP, "promisc": PROMISC, "allmulti": ALLMULTI}
_AF_BRIDGE, _VLANS = 7, 2  # AF_BRIDGE, RTEXT_FILTER_BRVLAN
_VLAN_PVID, _VLAN_UNTAGGED = 2, 4
# A bridge port forwards IPv6 but needs no IPv6 of its own. With IPv6 it has a route to ff00::/8. With a thousand ports
# the kernel searches all these routes for each multicast that a container sends, and whenever a link is deleted.
_NO_IPV6 = {"accept_ra": "0", "disable_ipv6": "1"}


def random_mac() -> str:
    """Return a random, locally administered unicast MAC."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def find_link(netns: NetnsHandle, name: str) -> Link | None:
    """Return the link called `name`, or None if there is none."""
    state = find_state(netns, name)
    return None if state is None else Link(netns, state)


def get_link(netns: NetnsHandle, name: str) -> Link:
    """Return the link called `name`. Raises CniError if there is none."""
    link = find_link(netns, name)
    if link is None:
        raise not_found(name)
    return link


def not_found(name: str) -> CniError:
    """Return the error for a link that does not exist."""
    return CniError(f'link "{name}" not found')


def refresh(netns: NetnsHandle, links: Sequence[Link]) -> None:
    """Read the state of these links of one namespace again. Raises CniError if one is gone."""
    outcomes = netns.netlink.outcomes(*[get_request(link.name) for link in links])
    for link, outcome in zip(links, outcomes, strict=True):
        link.state = LinkState.parse(_answer(link, outcome))


def refresh_operstate(netns: NetnsHandle, links: Sequence[Link]) -> None:
    """Read again whether these links of one namespace are up and can carry frames. Raises CniError if one is gone."""
    outcomes = netns.netlink.outcomes(*[get_request(link.name) for link in links])
    for link, outcome in zip(links, outcomes, strict=True):
        update_operstate(link, outcome)


def update_operstate(link: Link, outcome: list[Any] | NetlinkError) -> None:
    """Take `up` and `operstate` from the outcome of a `get_request`: nothing else has changed since the last one."""
    answer = _answer(link, outcome)
    link.state = link.state._replace(up=bool(answer["flags"] & UP), operstate=answer.get_attr("IFLA_OPERSTATE") or "")


def _answer(link: Link, outcome: list[Any] | NetlinkError) -> Any:
    if not isinstance(outcome, NetlinkError):
        return outcome[0]
    if outcome.errno in NO_SUCH_LINK:
        raise CniError(f'link "{link.name}" is gone')
    raise outcome


class Link:
    """A link in a namespace, with its state as it was last read.

    Example:
        eth = cni.container.link(cni.ifname)
        eth.set(mtu=1400, up=True)
        eth.expect(mtu=1400, up=True)
    """

    __slots__ = ("netns", "state")

    def __init__(self, netns: NetnsHandle, state: LinkState) -> None:
        self.netns = netns
        self.state = state

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The name of the link."""
        return self.state.name

    @property
    def index(self) -> int:
        """The index of the link in its namespace."""
        return self.state.index

    @property
    def mac(self) -> str:
        """The MAC of the link, in lower case."""
        return self.state.mac

    def refresh(self) -> LinkState:
        """Read the state again and return it. Raises CniError if the link is gone."""
        refresh(self.netns, [self])
        return self.state

    def set(self, **wanted: Unpack[LinkChanges]) -> None:
        """Change mtu, mac, up, promisc, allmulti, txqlen or alias; a failed ADD restores the former values.

        None leaves a property as it is. Raises CniError.
        """
        self._set(wanted, undone=True)

    def ensure(self, **wanted: Unpack[LinkChanges]) -> None:
        """Change the same properties of a shared link: the new values stay even if the call fails. Raises CniError."""
        self._set(wanted, undone=False)

    def _set(self, wanted: Mapping[str, object], *, undone: bool) -> None:
        before = self.state
        changes = {key: value for key, value in wanted.items() if value not in (None, getattr(before, key))}
        if not changes:
            return
        old = {key: getattr(before, key) for key in changes}
        words = ", ".join(_phrase(key, value) for key, value in changes.items())

        undo = partial(self._apply, old) if undone else None
        self.netns.journal.change(f"set {self.name} {words}", partial(self._apply, changes), undo)
        if changes.keys() <= _FLAGS.keys():
            flags: dict[str, Any] = changes
            self.state = before._replace(**flags)
        else:
            self.refresh()

    def _apply(self, values: Mapping[str, object]) -> None:
        """Set each property with a message of its own: the kernel may apply half of a message that it rejects."""
        outcomes = self.netns.netlink.outcomes(*[self.change_request(key, value) for key, value in values.items()])
        for (key, value), outcome in zip(values.items(), outcomes, strict=True):
            if not isinstance(outcome, NetlinkError):
                continue
            with explain_errors(f"cannot set {self.name} {_phrase(key, value)}"):
                if key != "mac" or outcome.errno != errno.EBUSY:
                    raise outcome
                # Some drivers change the MAC only while the device is down. The device loses its routes then.
                down, up = self.change_request("up", False), self.change_request("up", True)
                self.netns.netlink.request(down, self.change_request(key, value), up)

    def change_request(self, key: str, value: object) -> Message:
        """Return the request that changes one of the properties that `set` accepts."""
        if key in _ATTRIBUTES:
            return self.set_request((_ATTRIBUTES[key], value))
        flag = _FLAGS[key]
        return self.set_request(flags=flag if value else 0, change=flag)

    def set_request(self, *attributes: tuple[str, Any], flags: int = 0, change: int = 0) -> Message:
        """Return the request that sets netlink attributes of the link, and those of its flags that are in `change`."""
        return link_message(rtnetlink.NEWLINK, attributes, index=self.index, flags=flags, change=change)

    def expect(self, **wanted: Unpack[LinkSettings]) -> None:
        """Raise CniError for the first field of `state` that differs from `wanted`."""
        for name, value in wanted.items():
            found = getattr(self.state, name)
            if found != value:
                raise CniError(f"{self.name} should have {name} {value}, but has {found}")

    def ignore_router_advertisements(self) -> None:
        """Let no router advertisement from this link change the host's routes (CVE-2020-10749).

        To be called before the link is up.
        """
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, "accept_ra"): "0"})

    def skip_duplicate_address_detection(self) -> None:
        """Make the link-local address, which has a random MAC in it, usable at once.

        To be called before the link is up. While the address is tentative, the host sends no neighbour solicitation for
        the packets that it forwards, so containers cannot be reached by IPv6.
        """
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, "accept_dad"): "0"})

    def attach_to(self, bridge: Link, *, hairpin: bool = False, isolated: bool = False) -> str:
        """Make the link a port of the bridge and set it up. Return the MAC that the bridge has afterwards.

        The peer is still down, so no frame is forwarded before the port has its flags.
        """
        sysctl.prefer(self.netns, {sysctl.link_setting(6, self.name, key): value for key, value in _NO_IPV6.items()})
        messages = [self.set_request(("IFLA_MASTER", bridge.index), flags=UP, change=UP)]
        if hairpin or isolated:  # a new port has neither flag
            flags = [("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_ISOLATED", int(isolated))]
            port = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": flags})]
            messages.append(self.set_request(("IFLA_LINKINFO", {"attrs": port})))
        (answer,) = self._change(f"attach {self.name} to bridge {bridge.name}", [*messages, get_request(bridge.name)])
        return str(answer.get_attr("IFLA_ADDRESS"))

    def set_port_vlans(self, *, untagged: int, tagged: Iterable[int], keep_default: bool) -> None:
        """Put the bridge port into these VLANs: `untagged` is its PVID, `tagged` is its trunk.

        With `keep_default` it stays in the VLANs that it is in. Raises CniError.
        """
        present = [] if keep_default else [vlan for vlan in self.port_vlans() if vlan != untagged]
        removals = [self._port_vlan(rtnetlink.DELLINK, vlan, 0) for vlan in present]
        additions = [self._port_vlan(rtnetlink.SETLINK, untagged, _VLAN_PVID | _VLAN_UNTAGGED)]
        additions += [self._port_vlan(rtnetlink.SETLINK, vlan, 0) for vlan in tagged if vlan != untagged]
        self._change(f"put {self.name} into VLAN {untagged}", removals + additions)

    def port_vlans(self) -> dict[int, int]:
        """Return the VLANs of the bridge port, each with its flags (2: PVID, 4: untagged)."""
        request = link_message(rtnetlink.GETLINK, [("IFLA_EXT_MASK", _VLANS)], family=_AF_BRIDGE)
        for answer in self.netns.netlink.dump(request):
            if answer["index"] == self.index:
                spec = answer.get_attr("IFLA_AF_SPEC")
                infos = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else []
                return {info["vid"]: info["flags"] for info in infos}
        return {}

    def port_vlan_requests(self, wanted: Mapping[int, int]) -> list[Message]:
        """Return the requests that put the bridge port into exactly these VLANs, given with their flags."""
        present = self.port_vlans()
        removals = [self._port_vlan(rtnetlink.DELLINK, vlan, 0) for vlan in present if vlan not in wanted]
        missing = {vlan: flags for vlan, flags in wanted.items() if present.get(vlan) != flags}
        return removals + [self._port_vlan(rtnetlink.SETLINK, vlan, flags) for vlan, flags in missing.items()]

    def expect_port_vlans(self, wanted: AbstractSet[int]) -> None:
        """Raise CniError unless the bridge port is in all these VLANs."""
        if missing := wanted - self.port_vlans().keys():
            raise CniError(f"{self} has lost VLAN {min(missing)}")

    def port_settings(self, names: AbstractSet[str]) -> dict[str, int]:
        """Return those attributes of the bridge port whose kernel names are in `names`."""
        (answer,) = self.netns.netlink.request(get_request(self.name))
        settings = answer.in_full().get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        return {name: value for name, value in (settings["attrs"] if settings else ()) if name in names}

    def _port_vlan(self, kind: int, vlan: int, flags: int) -> Message:
        info = ("IFLA_BRIDGE_VLAN_INFO", {"vid": vlan, "flags": flags})
        return link_message(kind, [("IFLA_AF_SPEC", {"attrs": [info]})], family=_AF_BRIDGE, index=self.index)

    def _change(self, what: str, messages: list[Message]) -> list[Any]:
        def send() -> list[Any]:
            with explain_errors(f"cannot {what}"):
                return self.netns.netlink.request(*messages)

        return self.netns.journal.change(what, send)


def _phrase(key: str, value: object) -> str:
    if key == "up":
        return "up" if value else "down"
    return f"{key} {value}"
