"""The binding of an interface to its leased address: renewal, rebinding, expiry and release (RFC 2131 section 4.4.5).

           DISCOVER…ACK          T1                T2                      lease expired, or DHCPNAK
acquire ───────────────► bound ─────► renewing ───────► rebinding ───────────────────────────────────┐
   ▲                       ▲              │ its server     │ any server                              │
   │                       └──────────────┴────────────────┘                                         ▼
   └────────────────────────────────────────────────────────── the address is removed from the interface
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pycni.sdk import CniError, Link, Namespace, RouteChange, SourceRoute

from . import acquisition
from .acquisition import set_mtu
from .client import DhcpClient
from .lease import DhcpLease, now
from .lease_store import LeaseRecord, LeaseStore
from .timing import Timing
from .transaction import AddressUnavailableError, NoAnswerError, open_transaction

log = logging.getLogger(__name__)

_MIN_RETRANSMISSION = 60.0  # seconds between two REQUESTs while renewing or rebinding (RFC 2131 section 4.4.5)


class InterfaceGoneError(Exception):
    """The interface of the binding no longer exists."""


class Binding:
    """The binding of one interface."""

    def __init__(self, record: LeaseRecord, store: LeaseStore, timing: Timing, host_prefix: str = "") -> None:
        """Create a binding from its record. `host_prefix` is prepended to the paths of network namespaces."""
        self.record = record
        self._store, self._timing, self._host_prefix = store, timing, host_prefix
        self._pauses = timing.pauses()
        self._other_routes: tuple[SourceRoute, ...] = ()  # routes of others, to restore with the next address

    def __str__(self) -> str:
        return str(self.record.client)

    @property
    def lease(self) -> DhcpLease:
        """Return the current lease."""
        return self.record.lease

    @classmethod
    async def acquire(
        cls, client: DhcpClient, cookie: str, store: LeaseStore, timing: Timing, host_prefix: str = ""
    ) -> Self:
        """Acquire a lease and store its record. Raise CniError or OSError, as `acquisition.acquire` does."""
        binding = cls(await acquisition.acquire(client, cookie, timing, host_prefix), store, timing, host_prefix)
        try:
            store.write(binding.record)
        except CniError:
            binding.send_release()
            raise
        return binding

    async def maintain(self) -> None:
        """Renew the lease for as long as the interface exists, then remove the record."""
        try:
            while True:
                await self._sleep_until(await self._step())
        except InterfaceGoneError as gone:
            log.info("%s: %s; its lease of %s is left to expire", self, gone, self.lease.address)
            self._store.remove(self.record.client.owner)

    async def _sleep_until(self, until: float) -> None:
        """Sleep, and check the interface at intervals. Raise InterfaceGoneError."""
        while (left := until - now()) > 0:
            await asyncio.sleep(min(left, self._timing.check_interval))
            self.expect_interface()

    async def _step(self) -> float:
        """Do what is due, log errors, and return the time of the next step. Raise InterfaceGoneError."""
        try:
            return await self._renew_if_due()
        except (CniError, OSError, ValueError) as error:
            self.expect_interface()
            log.warning("%s: %s", self, error)
            again = now() + next(self._pauses)
            return again if now() >= self.lease.expires_at else min(again, self.lease.expires_at)

    async def _renew_if_due(self) -> float:
        """Renew, rebind or reacquire the lease if it is due. Return the time of the next step."""
        lease, time = self.lease, now()
        if self.record.withdrawn:
            return await self._reacquire()
        if time < lease.renew_at:
            return lease.renew_at
        try:
            if time >= lease.expires_at:
                raise AddressUnavailableError("the lease has expired")
            with self._interface() as (netns, link):
                with open_transaction(link, self.record.client, self._timing) as transaction:
                    new = await (transaction.renew(lease) if time < lease.rebind_at else transaction.rebind(lease))
                self._apply(new, netns, link)
        except NoAnswerError:
            log.info("%s: no DHCP server answers the REQUEST for %s", self, lease.address)
            return self._next_request(lease.rebind_at if time < lease.rebind_at else lease.expires_at)
        except AddressUnavailableError as unavailable:
            log.warning("%s: %s: removing %s from the interface", self, unavailable, lease.cidr)
            self._withdraw()
            return now()
        return self.lease.renew_at

    def _next_request(self, end: float) -> float:
        """Return the time of the next REQUEST: after half of the time to `end` (T2 or expiry).

        The wait is at least 60 s, or a sixteenth of a lease that is so short that 60 s would be too long.
        """
        least = min(_MIN_RETRANSMISSION, self.lease.duration / 16)
        return min(now() + max((end - now()) / 2, least), end)

    async def _reacquire(self) -> float:
        """Acquire a lease again after the address was withdrawn, preferably of the same address."""
        with self._interface() as (netns, link):
            try:
                with open_transaction(link, self.record.client, self._timing) as transaction:
                    new = await transaction.acquire(self.lease.address)
            except (NoAnswerError, AddressUnavailableError) as error:
                log.info("%s: cannot acquire a new lease: %s", self, str(error) or "no server has answered")
                return now() + next(self._pauses)
            self._apply(new, netns, link)
        return self.lease.renew_at

    def _apply(self, new: DhcpLease, netns: Namespace, link: Link) -> None:
        """Make `new` the current lease. Change addresses, routes and MTU of the interface if they differ."""
        old, priority = self.lease, self.record.client.priority
        before = () if self.record.withdrawn else (old.cidr,)
        routes = old.routes(priority) if before else ()
        if before != (new.cidr,) or routes != new.routes(priority):
            log.warning("%s: the address changes from %s to %s", self, old.cidr if before else "none", new.cidr)
            change = RouteChange(routes, new.routes(priority), self._other_routes)
            netns.addresses.replace(link, before, (new.cidr,), change)
            netns.addresses.announce(link)
        if new.mtu and new.mtu != old.mtu:
            set_mtu(link, new.mtu)
        self._other_routes, self._pauses = (), self._timing.pauses()
        self._write(self.record.model_copy(update={"lease": new, "withdrawn": False}))
        log.info("%s: lease of %s extended by %g s", self, new.cidr, new.duration)

    def _withdraw(self) -> None:
        """Remove the address from the interface: the server may give it to another client."""
        routes = self.lease.routes(self.record.client.priority)
        with self._interface() as (netns, link):
            self._other_routes = netns.routes.added_by_others(link, routes)
            netns.addresses.replace(link, (self.lease.cidr,), (), RouteChange(routes))
        self._write(self.record.model_copy(update={"withdrawn": True}))

    def _write(self, record: LeaseRecord) -> None:
        self.record = record
        self._store.write(record)

    def release(self) -> None:
        """Send a RELEASE if possible, and remove the record. Raise CniError, code 5, if it cannot be removed."""
        self.send_release()
        self._store.remove(self.record.client.owner)

    def send_release(self) -> None:
        """Send a RELEASE to the server. If that is impossible, log a warning and let the lease expire."""
        try:
            if not self.record.withdrawn and now() < self.lease.expires_at:
                with (
                    self._interface() as (_, link),
                    open_transaction(link, self.record.client, self._timing) as transaction,
                ):
                    transaction.release(self.lease)
                log.info("%s: released %s at %s", self, self.lease.address, self.lease.server)
        except (InterfaceGoneError, CniError, OSError) as error:
            log.warning("%s: cannot release %s, which is left to expire: %s", self, self.lease.address, error)

    def expect_interface(self) -> None:
        """Raise InterfaceGoneError if the interface no longer exists."""
        with self._interface():
            pass

    @contextmanager
    def _interface(self) -> Iterator[tuple[Namespace, Link]]:
        """Open the network namespace and the interface. Raise InterfaceGoneError if either is gone or was replaced."""
        record = self.record
        try:
            netns = Namespace.at(self._host_prefix + record.client.netns)
        except CniError as error:
            raise InterfaceGoneError(str(error)) from None
        try:
            if netns.cookie != record.cookie:
                raise InterfaceGoneError(f"{record.client.netns} is a different network namespace now")
            link = netns.find_link(record.client.ifname)
            if link is None or link.index != record.index:
                raise InterfaceGoneError(f"{record.client.ifname} no longer exists")
            yield netns, link
        finally:
            netns.close()
