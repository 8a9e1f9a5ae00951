"""Links of a namespace: found, made, moved and removed."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pycni.kernel.link import creation, link_move, links, taps
from pycni.kernel.link.links import Link, Value, explained, random_mac
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner
from pycni.kernel.scheduling import poll_with_backoff
from pycni.protocol.errors import CniError

if TYPE_CHECKING:
    from pycni.kernel.link.saved_link import SavedLink
    from pycni.kernel.link.taps import Tap


_CARRIER_DEADLINE = 2.0  # seconds


class LinkVerbs(NetnsHandle):
    """The verbs of links."""

    still = False  # whether nothing is changed, so that one look at each link is enough

    @cached_property
    def _seen(self) -> dict[str, links.LinkState]:
        return {}

    def find_link(self, name: str) -> Link | None:
        """The link called `name`, or None."""
        state = self._seen.get(name) or links.find_state(self, name)
        return None if state is None else self._look(state)

    def _look(self, state: links.LinkState) -> Link:
        if self.still:
            self._seen[state.name] = state
        return Link(self, state)

    def link(self, name: str) -> Link:
        """The link called `name`. Raises CniError if there is none."""
        link = self.find_link(name)
        if link is None:
            raise links.missing(name)
        return link

    def expect_no_link(self, name: str) -> None:
        """Raise CniError if there is a link called `name`."""
        if self.find_link(name) is not None:
            raise CniError(
                f'interface "{name}" already exists in {self.path}', details="it needs a DEL before the next ADD"
            )

    def expect_no_peer(self, peer: str, name: str) -> None:
        """Raise CniError if there is a link called `peer`, which was to be the other end of a cable from `name`."""
        if self.find_link(peer) is not None:
            raise CniError(
                f'container veth name ("{peer}") peer provided ("{name}") already exists',
                details=f"{self.path} has an interface {peer}; it needs a DEL before the next ADD",
            )

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        return [Link(self, state) for state in links.all_states(self)]

    def find_peer_of(self, other_end: Link) -> Link | None:
        """The link here whose cable leads to `other_end`, a veth in another namespace; None if it is not here."""
        index = other_end.state.peer
        if not index:
            return None
        seen = (state for state in self._seen.values() if state.index == index)
        state = next(seen, None) or links.find_state_at(self, index)
        return self._look(state) if state is not None and state.peer == other_end.index else None

    def peer_of(self, other_end: Link) -> Link:
        """The same, where there must be one. Raises CniError."""
        peer = self.find_peer_of(other_end)
        if peer is None:
            raise CniError(f"the host's end of the cable to {other_end} is gone")
        return peer

    def create_veth(
        self, name: str, *, peer: str, peer_in: LinkVerbs, mtu: int | None = None, mac: str = "", alias: str = ""
    ) -> tuple[Link, Link]:
        """A cable from here to `peer_in`: both ends with their final names and addresses, both still down."""
        size = [("IFLA_MTU", mtu)] if mtu else []
        end_mac = mac or random_mac()
        end = [("IFLA_IFNAME", peer), ("IFLA_ADDRESS", end_mac), ("IFLA_NET_NS_FD", peer_in.fd), *size]
        data = {"attrs": [("VETH_INFO_PEER", {"attrs": end})]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
        own = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac()), ("IFLA_TXQLEN", 0), *size]
        creation = link_message(
            rtnetlink.NEWLINK,
            [*own, ("IFLA_LINKINFO", pair)],
            how=rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE,
        )
        naming = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)])

        def do() -> tuple[Link, Link]:
            messages = creation, naming, links.question(name)
            outcomes = self.netlink.outcomes(*messages)
            if isinstance(outcomes[0], NetlinkError) and outcomes[0].errno == errno.EEXIST:
                peer_in.expect_no_peer(peer, name)
                links.delete(self, name)  # left by an ADD of the same attachment that was killed half-way
                outcomes = self.netlink.outcomes(*messages)
            refusal = next((outcome for outcome in outcomes if isinstance(outcome, NetlinkError)), None)
            if refusal is not None:
                if not isinstance(outcomes[0], NetlinkError):
                    links.delete(self, name)
                with explained(f"cannot create veth {name} with peer {peer}"):
                    raise refusal
            (answer,) = next(answers for answers in outcomes if answers and not isinstance(answers, NetlinkError))
            state = links.LinkState.of(answer)
            if not state.peer:  # before Linux 5.11, where both ends have the same index
                return Link(self, state), peer_in.link(peer)
            return Link(self, state), Link(peer_in, links.other_end(state, peer, end_mac))

        return self.journal.change(f"create veth {name} with peer {peer}", do, lambda: links.delete(self, name))

    def find_default_link(self) -> Link | None:
        """The link of the default route, IPv4's before IPv6's; None if there is none."""
        state = creation.find_default(self)
        return None if state is None else Link(self, state)

    def create_link(
        self,
        name: str,
        kind: str,
        owner: Owner,
        *,
        master: Link | None = None,
        mtu: int = 0,
        mac: str = "",
        settings: Mapping[str, Value] | None = None,
    ) -> Link:
        """A link of the container's own, still down; it stands on its `master`, which may be in another namespace.

        `settings` are what only links of its kind have, by the names of LinkState.
        """
        attributes = _size_and_mac(mtu, mac)
        return creation.create(self, name, kind, owner, master=master, attributes=attributes, settings=settings or {})

    def create_tap(self, name: str, owner: Owner, tap: Tap, *, mtu: int = 0, mac: str = "") -> Link:
        """A tap, still down, which stays whether or not somebody opens it."""
        return taps.create(self, name, owner, tap, _size_and_mac(mtu, mac))

    def create_move(self, link: Link, there: LinkVerbs, name: str, home: SavedLink) -> Link:
        """Lend the link to another namespace, where it is called `name`; it comes home if the call fails."""
        return link_move.create(link, there, name, home)

    def find_lent(self, home: SavedLink, name: str) -> Link | None:
        """The link that was lent to this namespace, by its alias, or by this name and its MAC; None if it is gone."""
        return link_move.find_away(self, home, name)

    def bring_home(self, link: Link, home: SavedLink) -> None:
        """Bring the link of another namespace home to this one, and make it what it was. Raises CniError."""
        link_move.bring_home(link, self, home)

    def welcome(self, home: SavedLink, *, patient: bool) -> bool:
        """Make a link what it was that has come home by itself; says whether it is there."""
        return link_move.welcome(self, home, patient=patient)

    def expect_kind(self, kind: str) -> None:
        """Raise CniError, code 50, unless the kernel has links of the kind."""
        creation.probe(self, kind)

    def expect_taps(self) -> None:
        """Raise CniError, code 50, unless taps can be made."""
        taps.probe()

    def delete_link(self, name: str) -> None:
        """Remove the link; a veth takes its other end along."""
        self.journal.attempt(f"delete link {name}", partial(links.delete, self, name))

    def wait_for_carrier(self, *waited_for: Link) -> None:
        """Wait until the links can carry frames (a port of a bridge: until it forwards). Raises CniError."""
        for _ in poll_with_backoff(_CARRIER_DEADLINE):
            links.see_whether_up(self, waited_for)
            late = [link for link in waited_for if link.state.operstate != "UP"]
            if not late:
                return
        link, *_ = late
        what = "bridge port" if link.refresh().master else "link"
        raise CniError(f"{what} in error state: {link} is {link.state.operstate or 'unknown'}")

    def set_down(self, name: str) -> None:
        """Set the link down; one that is gone is down enough."""

        def do() -> None:
            link = self.find_link(name)
            if link is not None:
                link.ensure(up=False)

        self.journal.attempt(f"set {name} down", do)


def _size_and_mac(mtu: int, mac: str) -> list[tuple[str, Any]]:
    return ([("IFLA_MTU", mtu)] if mtu else []) + ([("IFLA_ADDRESS", mac)] if mac else [])
