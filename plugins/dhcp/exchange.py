"""What client and servers say to each other: DISCOVER to ACK, renewal, rebinding, release (RFC 2131 section 3)."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from ipaddress import IPv4Address

from pycni.sdk import Datagram, DatagramSocket, Link, probing

from . import options
from .client import Client
from .lease import Lease, now
from .message import NOBODY, Kind, Message, MessageError
from .options import Option
from .timing import Timing

log = logging.getLogger(__name__)

CLIENT_PORT, SERVER_PORT = 68, 67
_EVERYBODY = IPv4Address("255.255.255.255")
_RECEIVE = 1 << 16


class NoAnswerError(Exception):
    """No server has answered in time."""


class RefusedError(Exception):
    """A server says that the address is not, or no more, the client's (DHCPNAK)."""


class TakenError(RefusedError):
    """Somebody on the network has the address already."""


class Exchange:
    """An exchange of messages over one link."""

    def __init__(self, client: Client, link: Link, datagrams: DatagramSocket, timing: Timing) -> None:
        self._client, self._link, self._mac = client, link, link.mac
        self._datagrams = datagrams
        self._timing = timing
        self._xid = secrets.randbits(32)

    async def acquire(self, wanted: IPv4Address | None = None) -> Lease:
        """Ask all servers for an address, if possible for the `wanted` one.

        Raises NoAnswerError after the timeout, RefusedError, TakenError, ValueError for a lease that is none.
        """
        async with _at_most(self._timing.timeout):
            discover = self._message(Kind.DISCOVER)
            if wanted is not None:
                discover = self._message(Kind.DISCOVER, requested_address=wanted.packed)
            offer, _ = await self._ask(discover, Kind.OFFER)
            server = offer.options.get(Option.SERVER, b"")
            request, decline = (
                self._message(kind, requested_address=offer.yours.packed, server=server)
                for kind in (Kind.REQUEST, Kind.DECLINE)
            )
            with self._holder_of(offer.yours) as holder:
                lease = await self._lease(request)
                if mac := holder():
                    self._send(decline, None)
                    raise TakenError(f"{mac} has {offer.yours} already")
                return lease

    def _holder_of(self, address: IPv4Address) -> AbstractContextManager[Callable[[], str | None]]:
        """Who has the address already, if it is known by the time that it is asked: nobody waits for an answer."""
        return probing(self._link, self._datagrams, address) if self._client.declines else nullcontext(lambda: None)

    async def renew(self, lease: Lease) -> Lease:
        """Ask the server of the lease for more time. Raises NoAnswerError, RefusedError, ValueError."""
        return await self._extend(lease, until=lease.rebind_at, server=lease)

    async def rebind(self, lease: Lease) -> Lease:
        """Ask all servers for more time. Raises NoAnswerError, RefusedError, ValueError."""
        return await self._extend(lease, until=lease.expires_at)

    async def _extend(self, lease: Lease, *, until: float, server: Lease | None = None) -> Lease:
        async with _at_most(min(self._timing.timeout, until - now())):
            return await self._lease(self._message(Kind.REQUEST, client=lease.address), server)

    def release(self, lease: Lease) -> None:
        """Give the address back to its server. Raises OSError; there is no answer."""
        self._send(self._message(Kind.RELEASE, client=lease.address, server=lease.server.packed), lease)

    def _message(self, kind: Kind, *, client: IPv4Address = NOBODY, **about: bytes) -> Message:
        message = self._client.message(kind, self._xid, self._mac, client=client, **about)
        # Who has the address configured can be answered at it.
        return replace(message, broadcast=self._timing.broadcast and client == NOBODY)

    async def _lease(self, request: Message, server: Lease | None = None) -> Lease:
        asked_at = now()
        ack, answer = await self._ask(request, Kind.ACK, server)
        return Lease.of(ack, answer.source_mac, asked_at)

    async def _ask(self, message: Message, wanted: Kind, server: Lease | None = None) -> tuple[Message, Datagram]:
        """Send the message again and again until it is answered; it goes to all servers unless one is given."""
        for patience in self._timing.retries(fresh=message.kind == Kind.DISCOVER):
            self._send(message, server)
            try:
                async with asyncio.timeout(patience):
                    return await self._answer(wanted)
            except TimeoutError:
                log.debug("%s: no answer to %s", self._client, message.kind.name)
        raise AssertionError("there is no end to retries")

    async def _answer(self, wanted: Kind) -> tuple[Message, Datagram]:
        loop = asyncio.get_running_loop()
        while True:
            packet, sender = await loop.sock_recvfrom(self._datagrams.socket, _RECEIVE)
            datagram = self._datagrams.decode(packet, sender)
            if datagram is None:
                continue
            try:
                message = Message.decode(datagram.payload)
            except MessageError:
                continue
            if message.xid != self._xid or message.mac != self._mac:
                continue
            if message.kind == Kind.NAK and wanted == Kind.ACK:
                reason = options.text(message.options.get(Option.REASON, b"")) or "no reason given"
                raise RefusedError(f"{datagram.source} says no: {reason}")
            if message.kind == wanted:
                return message, datagram

    def _send(self, message: Message, server: Lease | None) -> None:
        if server is None:
            self._datagrams.send(message.encode(), source=message.client, to=_EVERYBODY, port=SERVER_PORT)
        else:
            self._datagrams.send(
                message.encode(), source=message.client, to=server.server, port=SERVER_PORT, mac=server.server_mac
            )


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds if seconds != float("inf") else None):
            yield
    except TimeoutError:
        raise NoAnswerError from None


@contextmanager
def over(link: Link, client: Client, timing: Timing) -> Iterator[Exchange]:
    """An exchange over the link. Raises OSError if it is not usable."""
    datagrams = DatagramSocket(link.netns, link.name, CLIENT_PORT)
    try:
        yield Exchange(client, link, datagrams, timing)
    finally:
        datagrams.close()
