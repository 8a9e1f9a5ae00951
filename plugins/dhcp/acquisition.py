"""Acquisition of a lease: set the interface up, then repeat DISCOVER and REQUEST until a server grants an address."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.sdk import CniError, Code, Link, Namespace

from .client import DhcpClient
from .lease import DhcpLease, now
from .lease_store import LeaseRecord
from .timing import Timing
from .transaction import AddressUnavailableError, NoAnswerError, open_transaction

log = logging.getLogger(__name__)

_CARRIER_TIMEOUT, _CARRIER_POLL = 1.0, 0.002  # seconds


async def acquire(client: DhcpClient, cookie: str, timing: Timing, host_prefix: str = "") -> LeaseRecord:
    """Return the record of a new lease. The address is not configured on the interface yet.

    `host_prefix` is prepended to the paths of network namespaces. Raise CniError if the namespace or the interface does
    not exist or no server grants an address in time, OSError if the namespace cannot be opened.
    """
    with _opened(host_prefix + client.netns) as netns:
        if netns.cookie != cookie:
            raise CniError(
                f"{client.netns} is a different network namespace for the DHCP lease daemon than for the plugin",
                code=Code.INVALID_NETNS,
                details="if the daemon runs in a container, set -hostprefix to the host's root directory",
            )
        link = netns.link(client.ifname)
        await _set_up(netns, link)
        log.info("%s: acquiring a lease", client)
        lease = await _acquire_repeatedly(client, link, timing)
        log.info("%s: got %s from %s for %g s", client, lease.cidr, lease.server, lease.duration)
        if lease.mtu:
            set_mtu(link, lease.mtu)
        return LeaseRecord(client=client, cookie=cookie, index=link.index, lease=lease)


@contextmanager
def _opened(path: str) -> Iterator[Namespace]:
    netns = Namespace.at(path)
    try:
        yield netns
    finally:
        netns.close()


async def _set_up(netns: Namespace, link: Link) -> None:
    """Set the interface up and wait for its carrier. Continue without a carrier after a timeout."""
    if not link.state.up:
        netns.addresses.prepare_for_dhcp(link)
    deadline = now() + _CARRIER_TIMEOUT
    while link.refresh().operstate not in ("UP", "UNKNOWN") and now() < deadline:
        await asyncio.sleep(_CARRIER_POLL)


async def _acquire_repeatedly(client: DhcpClient, link: Link, timing: Timing) -> DhcpLease:
    """Try to get a lease, with growing pauses. Raise CniError after `timing.resend_timeout` seconds."""
    end, cause = now() + timing.resend_timeout, ""
    for pause in timing.pauses():
        try:
            with open_transaction(link, client, timing) as transaction:
                return await transaction.acquire()
        except (NoAnswerError, AddressUnavailableError, ValueError) as error:
            cause = str(error) or "no server has answered"
        except OSError as error:
            raise CniError(
                f"cannot send DHCP messages on {link}: {(error.strerror or str(error)).lower()}",
                details="the interface was set down or deleted during the ADD",
            ) from None
        if now() + pause >= end:
            break
        await asyncio.sleep(pause)
    raise CniError(
        f"no more tries: no DHCP lease for {link} within {timing.resend_timeout:g} s: {cause}",
        code=Code.TRY_AGAIN_LATER,
        details="check that a DHCP server is reachable on the network of the interface",
    )


def set_mtu(link: Link, mtu: int) -> None:
    """Set the MTU that the server sent. Log a warning if the interface does not accept it."""
    try:
        link.ensure(mtu=mtu)
    except CniError as error:
        log.warning("cannot set the MTU from the DHCP server: %s", error)
