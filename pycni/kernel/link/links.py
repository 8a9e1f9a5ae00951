"""The attribute `links` of a namespace: find, create, delete and wait for links."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.link import creation, routes
from pycni.kernel.link.deletion import delete
from pycni.kernel.link.link import Link, not_found, random_mac, refresh_operstate
from pycni.kernel.link.link_state import LinkState, all_states, find_state, find_state_at, get_request
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, explain_errors, link_message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.operations import NetnsOperations
from pycni.kernel.owner import Owner
from pycni.kernel.scheduling import poll_with_backoff
from pycni.protocol.errors import CniError, Code

if TYPE_CHECKING:
    from pycni.kernel.link.link_settings import LinkSettings

_CARRIER_TIMEOUT = 2.0  # seconds
_MULTICAST_MAC = "01:00:00:00:00:00"


class Links(NetnsOperations):
    """The links of a network namespace."""

    __slots__ = ("_cache",)

    def __init__(self, netns: NetnsHandle, *, cached: bool = False) -> None:
        """With `cached` the state of each link is read only once: for calls that change nothing."""
        super().__init__(netns)
        self._cache: dict[str, LinkState] | None = {} if cached else None

    def find(self, name: str) -> Link | None:
        """Return the link called `name`, or None if there is none."""
        state = (self._cache.get(name) if self._cache else None) or find_state(self._netns, name)
        return None if state is None else self._link(state)

    def get(self, name: str) -> Link:
        """Return the link called `name`. Raises CniError if there is none."""
        link = self.find(name)
        if link is None:
            raise not_found(name)
        return link

    def _link(self, state: LinkState) -> Link:
        if self._cache is not None:
            self._cache[state.name] = state
        return Link(self._netns, state)

    def all(self) -> list[Link]:
        """Return every link of the namespace."""
        return [Link(self._netns, state) for state in all_states(self._netns)]

    def find_default(self) -> Link | None:
        """Return the link of the default route, or None if there is none.

        IPv4 comes before IPv6, and within a family the route with the lowest metric counts.
        """
        defaults = [(v, metric, index) for v in (4, 6) for metric, index in routes.default_routes(self._netns, v)]
        state = find_state_at(self._netns, min(defaults)[2]) if defaults else None
        return None if state is None else Link(self._netns, state)

    def find_peer(self, link: Link) -> Link | None:
        """Return the veth peer of `link`, a link of another namespace; None if the peer is not in this namespace."""
        index = link.state.peer
        if not index:
            return None
        cached = next((state for state in (self._cache or {}).values() if state.index == index), None)
        state = cached or find_state_at(self._netns, index)
        return self._link(state) if state is not None and state.peer == link.index else None

    def peer(self, link: Link) -> Link:
        """Return the veth peer of `link`, a link of another namespace. Raises CniError if it is not here."""
        peer = self.find_peer(link)
        if peer is None:
            raise CniError(f"the veth peer of {link} on the host is gone")
        return peer

    def expect_absent(self, name: str) -> None:
        """Raise CniError if there is a link called `name`."""
        if self.find(name) is not None:
            raise CniError(
                f'interface "{name}" already exists in {self._netns.path}',
                details="it needs a DEL before the next ADD",
            )

    def expect_kind_supported(self, kind: str) -> None:
        """Raise CniError, code 50, unless the kernel supports links of this kind."""
        # Never creates a link, since no link may have a multicast MAC. The kernel checks the kind first, and loads its
        # module.
        invalid = [("IFLA_ADDRESS", _MULTICAST_MAC), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})]
        (outcome,) = self._netns.netlink.outcomes(link_message(rtnetlink.NEWLINK, invalid, how=rtnetlink.CREATE_NEW))
        if isinstance(outcome, NetlinkError) and outcome.errno == errno.EOPNOTSUPP:
            raise CniError(
                f"this kernel has no {kind} links",
                code=Code.PLUGIN_NOT_AVAILABLE,
                details=f"the plugin needs the kernel's module for {kind}",
            )

    def create_veth(
        self, name: str, *, peer: str, peer_in: NetnsHandle, mtu: int | None = None, mac: str = "", alias: str = ""
    ) -> tuple[Link, Link]:
        """Create a veth pair and return both ends: `name` in this namespace, `peer` in `peer_in`.

        Both ends are down and have their final names and MACs; `mac` is that of the peer. `mtu` is in bytes.
        """
        size = [("IFLA_MTU", mtu)] if mtu else []
        peer_mac = mac or random_mac()
        end = [("IFLA_IFNAME", peer), ("IFLA_ADDRESS", peer_mac), ("IFLA_NET_NS_FD", peer_in.fd), *size]
        data = {"attrs": [("VETH_INFO_PEER", {"attrs": end})]}
        pair = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
        own = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", random_mac()), ("IFLA_TXQLEN", 0), *size]
        creation = link_message(rtnetlink.NEWLINK, [*own, ("IFLA_LINKINFO", pair)], how=rtnetlink.CREATE_NEW)
        labelling = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)])

        def do() -> tuple[Link, Link]:
            messages = creation, labelling, get_request(name)
            outcomes = self._netns.netlink.outcomes(*messages)
            if isinstance(outcomes[0], NetlinkError) and outcomes[0].errno == errno.EEXIST:
                _expect_no_peer(peer_in, peer, name)
                delete(self._netns, name)  # left behind by an ADD of the same attachment that was killed
                outcomes = self._netns.netlink.outcomes(*messages)
            for outcome in outcomes:
                if isinstance(outcome, NetlinkError):
                    not_created = outcome is outcomes[0]
                    with explain_errors(f"cannot create veth {name} with peer {peer}", rolled_back=not_created):
                        raise outcome
            (answer,) = next(answers for answers in outcomes if answers and not isinstance(answers, NetlinkError))
            state = LinkState.parse(answer)
            if not state.peer:  # before Linux 5.11, if both ends have the same index
                return Link(self._netns, state), Links(peer_in).get(peer)
            return Link(self._netns, state), Link(peer_in, state.new_peer(peer, peer_mac))

        what = f"create veth {name} with peer {peer}"
        return self._netns.journal.change(what, do, lambda: delete(self._netns, name))

    def create(
        self,
        name: str,
        kind: str,
        owner: Owner,
        *,
        master: Link | None = None,
        mtu: int = 0,
        mac: str = "",
        settings: LinkSettings | None = None,
    ) -> Link:
        """Create a link that belongs to one attachment; it carries the owner's label and is down.

        `master` is the lower link of a macvlan, ipvlan or vlan and may be in another namespace. `mtu` is in bytes, 0 is
        the kernel's default. `settings` are `mode`, `broadcast_queue` or `vlan`, see LinkState. Raises CniError.
        """
        netns = self._netns if master is None else master.netns
        info = creation.link_info(kind, settings or {})
        attributes = [("IFLA_IFNAME", owner.host_ifname), *creation.size_and_mac(mtu, mac), info]
        attributes += [("IFLA_LINK", master.index)] if master is not None else []
        attributes += [("IFLA_NET_NS_FD", self._netns.fd)] if netns is not self._netns else []
        words = f"{kind} {name}" + (f" on {master}" if master is not None else "")

        def send() -> None:
            with explain_errors(f"cannot create {words}"):
                netns.netlink.request(link_message(rtnetlink.NEWLINK, attributes, how=rtnetlink.CREATE_NEW))

        return creation.create_labelled(self._netns, name, owner, words, send)

    def delete(self, name: str) -> None:
        """Delete the link called `name`, and with a veth its peer. Go on if this fails."""
        self._netns.journal.attempt(f"delete link {name}", partial(delete, self._netns, name))

    def set_down(self, name: str) -> None:
        """Set the link called `name` down if there is one. Go on if this fails."""

        def do() -> None:
            link = self.find(name)
            if link is not None:
                link.ensure(up=False)

        self._netns.journal.attempt(f"set {name} down", do)

    def wait_for_carrier(self, *links: Link) -> None:
        """Wait until the links can carry frames; a bridge port, until it forwards. Raises CniError after 2 seconds."""
        for _ in poll_with_backoff(_CARRIER_TIMEOUT):
            refresh_operstate(self._netns, links)
            late = [link for link in links if link.state.operstate != "UP"]
            if not late:
                return
        link, *_ = late
        what = "bridge port" if link.refresh().master else "link"
        raise CniError(f"{what} in error state: {link} is {link.state.operstate or 'unknown'}")


def _expect_no_peer(netns: NetnsHandle, peer: str, name: str) -> None:
    """Raise CniError if the container has an interface with the name of the new veth's peer."""
    if find_state(netns, peer) is not None:
        error = CniError(
            f'container veth name ("{peer}") peer provided ("{name}") already exists',
            details=f"{netns.path} has an interface {peer}; it needs a DEL before the next ADD",
        )
        error.rolled_back = True  # the interface and `name` may be the veth of an earlier ADD, which is in use
        raise error
