"""How a binding comes about: the interface is set up, and servers are asked until one grants an address."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.sdk import CniError, Code, Link, Namespace

from . import exchange
from .client import Client
from .exchange import NoAnswerError, RefusedError
from .lease import Lease, now
from .store import Record
from .timing import Timing

log = logging.getLogger(__name__)

_CARRIER_DEADLINE, _CARRIER_PAUSE = 1.0, 0.002  # seconds


async def acquire(client: Client, cookie: str, timing: Timing, prefix: str = "") -> Record:
    """Ask for an address until there is one; the interface is not given it yet. Raises CniError, OSError.

    `prefix` stands before the paths of namespaces.
    """
    with _opened(prefix + client.netns) as place:
        if place.cookie != cookie:
            raise CniError(
                f"{client.netns} is another namespace for the DHCP keeper than for the plugin",
                code=Code.INVALID_NETNS,
                details="a keeper with a file system of its own needs to be told where the host's is: -hostprefix",
            )
        link = place.link(client.ifname)
        await _set_up(place, link)
        log.info("%s: acquiring a lease", client)
        lease = await _insist(client, link, timing)
        log.info("%s: %s from %s for %g s", client, lease.cidr, lease.server, lease.duration)
        if lease.mtu:
            adopt_mtu(link, lease.mtu)
        return Record(client=client, cookie=cookie, index=link.index, lease=lease)


@contextmanager
def _opened(path: str) -> Iterator[Namespace]:
    place = Namespace.at(path)
    try:
        yield place
    finally:
        place.close()


async def _set_up(place: Namespace, link: Link) -> None:
    """Set the link up if it is down, and wait until it carries frames; one that never will is tried all the same."""
    if not link.state.up:
        place.addresses.prepare_for_dhcp(link)
    deadline = now() + _CARRIER_DEADLINE
    while link.refresh().operstate not in ("UP", "UNKNOWN") and now() < deadline:
        await asyncio.sleep(_CARRIER_PAUSE)


async def _insist(client: Client, link: Link, timing: Timing) -> Lease:
    """Ask again and again, with growing pauses. Raises CniError when it has taken too long."""
    end, cause = now() + timing.resend_timeout, ""
    for pause in timing.pauses():
        try:
            with exchange.over(link, client, timing) as talk:
                return await talk.acquire()
        except (NoAnswerError, RefusedError, ValueError) as error:
            cause = str(error) or "no server has answered"
        except OSError as error:
            raise CniError(
                f"cannot ask for a DHCP lease over {link}: {(error.strerror or str(error)).lower()}",
                details="the interface went down or away meanwhile",
            ) from None
        if now() + pause >= end:
            break
        await asyncio.sleep(pause)
    raise CniError(
        f"no more tries: no DHCP lease for {link} within {timing.resend_timeout:g} s: {cause}",
        code=Code.TRY_AGAIN_LATER,
        details="a DHCP server must be reachable from the network that the interface is on",
    )


def adopt_mtu(link: Link, mtu: int) -> None:
    """Give the interface the MTU that the server wants, if it takes it."""
    try:
        link.ensure(mtu=mtu)
    except CniError as error:
        log.warning("the MTU that the DHCP server wants: %s", error)
