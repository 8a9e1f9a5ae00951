"""DHCP transactions over an interface: DISCOVER to ACK, renewal, rebinding and release (RFC 2131 section 3)."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from ipaddress import IPv4Address

from pycni.sdk import Datagram, DatagramSocket, Link, arp_probe

from . import options
from .client import DhcpClient
from .lease import DhcpLease, now
from .message import UNSPECIFIED, Message, MessageError, MessageType
from .options import Option
from .timing import Timing

log = logging.getLogger(__name__)

CLIENT_PORT, SERVER_PORT = 68, 67
_BROADCAST = IPv4Address("255.255.255.255")
_RECEIVE_SIZE = 1 << 16  # bytes


class NoAnswerError(Exception):
    """No server answered in time."""


class AddressUnavailableError(Exception):
    """The client may not use the address: a server sent DHCPNAK, the lease expired, or another host uses it."""


class AddressConflictError(AddressUnavailableError):
    """Another host on the network uses the address."""


class Transaction:
    """A transaction over one interface; all its messages have the same transaction id (xid)."""

    def __init__(self, client: DhcpClient, link: Link, datagrams: DatagramSocket, timing: Timing) -> None:
        self._client, self._link, self._mac = client, link, link.mac
        self._datagrams = datagrams
        self._timing = timing
        self._xid = secrets.randbits(32)

    async def acquire(self, requested: IPv4Address | None = None) -> DhcpLease:
        """Send DISCOVER and REQUEST, and return the granted lease. DISCOVER asks for the `requested` address if given.

        Raise NoAnswerError after the timeout, AddressUnavailableError for a DHCPNAK, AddressConflictError if another
        host uses the address, ValueError if the ACK is not a valid lease.
        """
        async with _timeout(self._timing.timeout):
            discover = self._message(MessageType.DISCOVER)
            if requested is not None:
                discover = self._message(MessageType.DISCOVER, requested_address=requested.packed)
            offer, _ = await self._send_until_answered(discover, MessageType.OFFER)
            server = offer.options.get(Option.SERVER_ID, b"")
            request, decline = (
                self._message(message_type, requested_address=offer.yiaddr.packed, server_id=server)
                for message_type in (MessageType.REQUEST, MessageType.DECLINE)
            )
            with self._conflict_probe(offer.yiaddr) as find_conflict:
                lease = await self._request(request)
                if mac := find_conflict():
                    self._send(decline, None)
                    raise AddressConflictError(f"{offer.yiaddr} is in use by the host with MAC address {mac}")
                return lease

    def _conflict_probe(self, address: IPv4Address) -> AbstractContextManager[Callable[[], str | None]]:
        """Send ARP probes for the address, and yield a function that returns the MAC address of a host that answered.

        The function does not wait: an answer counts if it arrives before the ACK.
        """
        if self._client.decline_conflicts:
            return arp_probe(self._link, self._datagrams, address)
        return nullcontext(lambda: None)

    async def renew(self, lease: DhcpLease) -> DhcpLease:
        """Extend the lease by unicast to its server (RENEWING). Raise as `acquire`."""
        return await self._extend(lease, until=lease.rebind_at, unicast_to=lease)

    async def rebind(self, lease: DhcpLease) -> DhcpLease:
        """Extend the lease by broadcast to any server (REBINDING). Raise as `acquire`."""
        return await self._extend(lease, until=lease.expires_at)

    async def _extend(self, lease: DhcpLease, *, until: float, unicast_to: DhcpLease | None = None) -> DhcpLease:
        async with _timeout(min(self._timing.timeout, until - now())):
            return await self._request(self._message(MessageType.REQUEST, ciaddr=lease.address), unicast_to)

    def release(self, lease: DhcpLease) -> None:
        """Send a RELEASE to the server, which does not answer. Raise OSError."""
        self._send(self._message(MessageType.RELEASE, ciaddr=lease.address, server_id=lease.server.packed), lease)

    def _message(self, message_type: MessageType, *, ciaddr: IPv4Address = UNSPECIFIED, **fields: bytes) -> Message:
        message = self._client.message(message_type, self._xid, self._mac, ciaddr=ciaddr, **fields)
        # A client that has the address configured receives unicast answers.
        return replace(message, broadcast=self._timing.broadcast and ciaddr == UNSPECIFIED)

    async def _request(self, request: Message, unicast_to: DhcpLease | None = None) -> DhcpLease:
        """Send the REQUEST and return the lease in the ACK."""
        requested_at = now()
        ack, answer = await self._send_until_answered(request, MessageType.ACK, unicast_to)
        return DhcpLease.of(ack, answer.source_mac, requested_at)

    async def _send_until_answered(
        self, message: Message, expected: MessageType, unicast_to: DhcpLease | None = None
    ) -> tuple[Message, Datagram]:
        """Send the message to the server of the lease, or by broadcast, until the expected answer arrives."""
        for wait in self._timing.retransmissions(new_link=message.message_type == MessageType.DISCOVER):
            self._send(message, unicast_to)
            try:
                async with asyncio.timeout(wait):
                    return await self._receive(expected)
            except TimeoutError:
                log.debug("%s: no answer to %s", self._client, message.message_type.name)
        raise AssertionError("retransmissions() never ends")

    async def _receive(self, expected: MessageType) -> tuple[Message, Datagram]:
        """Return the first answer of the expected type. Raise AddressUnavailableError if a DHCPNAK comes instead."""
        loop = asyncio.get_running_loop()
        while True:
            packet, sender = await loop.sock_recvfrom(self._datagrams.socket, _RECEIVE_SIZE)
            datagram = self._datagrams.decode(packet, sender)
            if datagram is None:
                continue
            try:
                message = Message.decode(datagram.payload)
            except MessageError:
                continue
            if message.xid != self._xid or message.chaddr != self._mac:
                continue
            if message.message_type == MessageType.NAK and expected == MessageType.ACK:
                reason = options.text(message.options.get(Option.ERROR_MESSAGE, b"")) or "no reason given"
                raise AddressUnavailableError(f"DHCPNAK from {datagram.source}: {reason}")
            if message.message_type == expected:
                return message, datagram

    def _send(self, message: Message, unicast_to: DhcpLease | None) -> None:
        if unicast_to is None:
            self._datagrams.send(message.encode(), source=message.ciaddr, to=_BROADCAST, port=SERVER_PORT)
        else:
            self._datagrams.send(
                message.encode(),
                source=message.ciaddr,
                to=unicast_to.server,
                port=SERVER_PORT,
                mac=unicast_to.server_mac,
            )


@asynccontextmanager
async def _timeout(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds if seconds != float("inf") else None):
            yield
    except TimeoutError:
        raise NoAnswerError from None


@contextmanager
def open_transaction(link: Link, client: DhcpClient, timing: Timing) -> Iterator[Transaction]:
    """Open a transaction over the interface. Raise OSError if the interface is not usable."""
    datagrams = DatagramSocket(link.netns, link.name, CLIENT_PORT)
    try:
        yield Transaction(client, link, datagrams, timing)
    finally:
        datagrams.close()
