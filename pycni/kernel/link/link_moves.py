"""The attribute `link_moves` of a namespace: move a link to another namespace and back, with its state restored.

While a link is away, its alias is the name that it had before, as the Go plugin host-device does it too.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.kernel.journal import Journal
from pycni.kernel.link.address_requests import list_permanent
from pycni.kernel.link.link import Link, get_link
from pycni.kernel.link.link_state import UP, LinkState, all_states, find_state, find_state_at, get_request
from pycni.kernel.link.saved_link import SavedLink, restore
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors
from pycni.kernel.netns.handle import OWN, NetnsHandle, unshare_network
from pycni.kernel.netns.operations import NetnsOperations
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)

_ANY_NAME = "dev%d"  # the kernel's own choice for links of a namespace that is gone
_TIMEOUT, _PAUSE = 1.0, 0.01  # seconds until the kernel has moved the links of a namespace that is gone


class LinkMoves(NetnsOperations):
    """Moves of links from this network namespace and back to it."""

    __slots__ = ()

    def create(self, link: Link, to: NetnsHandle, name: str, saved: SavedLink) -> Link:
        """Move the link into the namespace `to`, where it is called `name`, and return it there.

        If the call fails, the link is moved back and restored. Raises CniError.
        """
        # One message does it all: the link never is in the other namespace with the wrong name or without its alias.
        moving = _move_request(link, to, name, alias=saved.name)

        def do() -> Link:
            with explain_errors(f"cannot move {link} into {to.path} as {name}"):
                self._netns.netlink.request(moving)
            return get_link(to, name)

        def undo() -> None:
            state = find_state_at(self._netns, link.index)
            if state is not None and state.name == saved.name:
                restore(Link(self._netns, state), saved)  # the kernel may have set it down without moving it
                return
            # The kernel may have moved it without renaming it.
            moved = find_moved(to, saved, name) or find_moved(to, saved, saved.name)
            if moved is not None:
                self.move_back(moved, saved)

        return self._netns.journal.change(f"move {link} into the container as {name}", do, undo)

    def find(self, saved: SavedLink, name: str) -> Link | None:
        """Return the link that was moved into this namespace, or None if it is gone.

        It is found by its alias, or by this name together with its MAC.
        """
        return find_moved(self._netns, saved, name)

    def move_back(self, link: Link, saved: SavedLink) -> None:
        """Move the link of another namespace back to this one and restore its state. Raises CniError.

        If another link has its name, the link gets another name, which is logged.
        """
        # It is renamed before it is moved: udev and others act on a new link at once, and may rename it too.
        other = link.netns
        with explain_errors(f"cannot move {link} back as {saved.name}"):
            down, rename = link.set_request(change=UP), link.set_request(("IFLA_IFNAME", saved.name))
            _, renamed = other.netlink.outcomes(down, rename)
            if isinstance(renamed, NetlinkError):
                if renamed.errno != errno.EEXIST:
                    raise renamed
                with _temporary_namespace() as between:  # the container has another link with that name
                    other.netlink.request(_move_request(link, between, saved.name, alias=saved.name))
                    (state,) = between.netlink.request(get_request(saved.name))
                    returned = self._receive(Link(between, LinkState.parse(state)), saved)
            else:
                returned = self._receive(link, saved)
        restore(returned, saved)

    def restore_returned(self, saved: SavedLink, *, wait: bool) -> bool:
        """Restore the state of a link that the kernel has moved back. Return whether the link is in this namespace.

        With `wait`, wait up to a second for it: the kernel moves physical devices back when their namespace is gone.
        A link with its own name and another alias is left alone: it was never moved, or has been restored already. But
        it is restored if it is down and has no addresses: the Go plugin restores only the name.
        """
        named = find_state(self._netns, saved.name)
        found = self._find_returned(saved, wait=wait and named is None)
        if found is None and named is not None and _is_unconfigured(link := Link(self._netns, named), saved):
            found = link
        if found is not None:
            restore(found, saved)
        return found is not None or find_state(self._netns, saved.name) is not None

    def _find_returned(self, saved: SavedLink, *, wait: bool = False) -> Link | None:
        """Return the link that is back in this namespace, under whatever name; with `wait` it may come later."""
        deadline = time.monotonic() + _TIMEOUT
        with yield_turn():
            while not (found := [state for state in all_states(self._netns) if _has_alias(state, saved)]) and wait:
                if time.monotonic() > deadline:
                    break
                time.sleep(_PAUSE)
        return _best_match(self._netns, saved, saved.name, found)

    def _receive(self, link: Link, saved: SavedLink) -> Link:
        """Move the link into this namespace, if need be under another name."""
        (outcome,) = link.netns.netlink.outcomes(_move_request(link, self._netns, saved.name, alias=saved.name))
        if isinstance(outcome, NetlinkError):
            if outcome.errno != errno.EEXIST:
                raise outcome
            log.warning("another link is called %s: the link that is moved back gets another name", saved.name)
            link.netns.netlink.request(_move_request(link, self._netns, _ANY_NAME, alias=saved.name))
        found = self._find_returned(saved)
        if found is None:
            raise CniError(f"{saved.name} was moved back, but cannot be found")
        return found


def find_moved(netns: NetnsHandle, saved: SavedLink, name: str) -> Link | None:
    """Return the link that was moved into `netns`: the one with the saved alias, or with `name` and the saved MAC."""
    states = [state for state in all_states(netns) if _has_alias(state, saved) or _is_named(state, saved, name)]
    return _best_match(netns, saved, name, states)


def _has_alias(state: LinkState, saved: SavedLink) -> bool:
    return state.alias == saved.name


def _is_named(state: LinkState, saved: SavedLink, name: str) -> bool:
    return state.name == name and bool(saved.mac) and state.mac == saved.mac


def _is_unconfigured(link: Link, saved: SavedLink) -> bool:
    return _is_named(link.state, saved, saved.name) and not link.state.up and not list_permanent(link)


def _best_match(netns: NetnsHandle, saved: SavedLink, name: str, states: list[LinkState]) -> Link | None:
    best = max(states, key=lambda state: (state.name == name, state.mac == saved.mac), default=None)
    return None if best is None else Link(netns, best)


def _move_request(link: Link, to: NetnsHandle, name: str, *, alias: str) -> Message:
    return link.set_request(("IFLA_NET_NS_FD", to.fd), ("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias))


@contextmanager
def _temporary_namespace() -> Iterator[NetnsHandle]:
    """Provide an empty namespace that is gone after the block."""
    with Journal() as journal:
        before = NetnsHandle(OWN, journal)
        unshare_network()
        try:
            between = NetnsHandle(OWN, journal)
        finally:
            before.enter_permanently()
            before.close()
        try:
            yield between
        finally:
            between.close()
