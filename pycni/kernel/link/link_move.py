"""Links that are lent to another namespace: they go there at once under another name, and come home as they were."""

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pycni.kernel.journal import Journal
from pycni.kernel.link import addresses, links
from pycni.kernel.link.links import UP, Link, LinkState, explained
from pycni.kernel.link.saved_link import SavedLink, restore
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, link_message
from pycni.kernel.netns.handle import OWN, NetnsHandle, unshare_network
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)

_ANY_NAME = "dev%d"  # as the kernel itself calls what comes out of a namespace that is gone
_DEADLINE, _PAUSE = 1.0, 0.01  # seconds until the kernel has emptied a namespace that is gone


def create(link: Link, there: NetnsHandle, name: str, home: SavedLink) -> Link:
    """Move the link into the other namespace, where it is called `name`; it comes home if the call fails."""
    here = link.netns

    # One message does it all, so nobody meets the link in the other namespace under the wrong name, or without alias.
    moving = _moving(link, there, name, alias=home.name)

    def do() -> Link:
        with explained(f"cannot move {link} into {there.path} as {name}"):
            try:
                here.netlink.request(moving)
                return links.get(there, name)
            except BaseException:
                with suppress(CniError):
                    undo()  # it may be there already, if only the name was refused
                raise

    def undo() -> None:
        moved = find_away(there, home, name) or find_away(there, home, home.name)
        if moved is not None:
            bring_home(moved, here, home)
        elif (state := links.find_state(here, home.name)) is not None and state.index == link.index:
            restore(Link(here, state), home)  # it was set down, and stayed

    return there.journal.change(f"move {link} into the container as {name}", do, undo)


def find_away(there: NetnsHandle, home: SavedLink, name: str) -> Link | None:
    """The link that was lent, in the namespace where it went: by its alias, or by this name and its MAC."""
    states = links.all_states(there)
    return _best(there, home, name, [each for each in states if _is_lent(each, home) or _is_named(each, home, name)])


def _find_returned(here: NetnsHandle, home: SavedLink, *, patient: bool = False) -> Link | None:
    """The link at home, where the kernel has put it; with `patient` it may still be on its way."""
    deadline = time.monotonic() + _DEADLINE
    with yield_turn():
        while not (found := [each for each in links.all_states(here) if _is_lent(each, home)]) and patient:
            if time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
    return _best(here, home, home.name, found)


def welcome(here: NetnsHandle, home: SavedLink, *, patient: bool) -> bool:
    """Make the link what it was if it has come home by itself; says whether it is there.

    With `patient` it may still be on its way. One that is there under its own name without the alias was never away, or
    somebody has seen to it; unless it is down and bare, as the Go plugin leaves it, which knows nothing but its name.
    """
    named = links.find_state(here, home.name)
    found = _find_returned(here, home, patient=patient and named is None)
    if found is None and named is not None and _is_bare(link := Link(here, named), home):
        found = link
    if found is not None:
        restore(found, home)
    return found is not None or links.find_state(here, home.name) is not None


def _is_lent(state: LinkState, home: SavedLink) -> bool:
    return state.alias == home.name


def _is_named(state: LinkState, home: SavedLink, name: str) -> bool:
    return state.name == name and bool(home.mac) and state.mac == home.mac


def _is_bare(link: Link, home: SavedLink) -> bool:
    return _is_named(link.state, home, home.name) and not link.state.up and not addresses.lasting_on(link)


def _best(netns: NetnsHandle, home: SavedLink, name: str, candidates: list[LinkState]) -> Link | None:
    best = max(candidates, key=lambda state: (state.name == name, state.mac == home.mac), default=None)
    return None if best is None else Link(netns, best)


def bring_home(link: Link, here: NetnsHandle, home: SavedLink) -> None:
    """Move the link home, under its old name, and make it what it was. Raises CniError if it cannot come."""
    # It gets its name before it arrives: there, udev and others look at a new link at once, and may rename it too.
    away = link.netns
    with explained(f"cannot bring {link} home as {home.name}"):
        _, named = away.netlink.outcomes(_setting(link, change=UP), _setting(link, ("IFLA_IFNAME", home.name)))
        if isinstance(named, NetlinkError):
            if named.errno != errno.EEXIST:
                raise named
            with _passage() as passage:  # the container has another link of that name
                away.netlink.request(_moving(link, passage, home.name, alias=home.name))
                (state,) = passage.netlink.request(links.question(home.name))
                arrived = _arrive(Link(passage, LinkState.of(state)), here, home)
        else:
            arrived = _arrive(link, here, home)
    restore(arrived, home)


def _arrive(link: Link, here: NetnsHandle, home: SavedLink) -> Link:
    (outcome,) = link.netns.netlink.outcomes(_moving(link, here, home.name, alias=home.name))
    if isinstance(outcome, NetlinkError):
        if outcome.errno != errno.EEXIST:
            raise outcome
        log.warning("another link is called %s by now: %s comes home under another name", home.name, home.name)
        link.netns.netlink.request(_moving(link, here, _ANY_NAME, alias=home.name))
    found = _find_returned(here, home)
    if found is None:
        raise CniError(f"{home.name} did not arrive")
    return found


def _moving(link: Link, to: NetnsHandle, name: str, *, alias: str) -> Message:
    return _setting(link, ("IFLA_NET_NS_FD", to.fd), ("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias))


@contextmanager
def _passage() -> Iterator[NetnsHandle]:
    """A namespace that is there for a moment, and empty."""
    with Journal() as journal:
        before = NetnsHandle(OWN, journal)
        unshare_network()
        try:
            passage = NetnsHandle(OWN, journal)
        finally:
            before.enter_permanently()
            before.close()
        try:
            yield passage
        finally:
            passage.close()


def _setting(link: Link, *attributes: tuple[str, Any], flags: int = 0, change: int = 0) -> Message:
    return link_message(rtnetlink.NEWLINK, attributes, index=link.index, flags=flags, change=change)
