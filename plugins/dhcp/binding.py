"""A container's binding to its address: how it is kept for as long as the interface lives, and ends.

           DISCOVER…ACK          T1                T2                      the end of the lease, or a DHCPNAK
acquire ───────────────► bound ─────► renewing ───────► rebinding ───────────────────────────────────┐
   ▲                       ▲              │ its server     │ any server                              │
   │                       └──────────────┴────────────────┘                                         ▼
   └────────────────────────────────────────────────────────────────────── the address is withdrawn ─┘
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pycni.sdk import CniError, Link, Namespace, RouteChange, SourceRoute

from . import acquisition, exchange
from .acquisition import adopt_mtu
from .client import Client
from .exchange import NoAnswerError, RefusedError
from .lease import Lease, now
from .store import Record, Store
from .timing import Timing

log = logging.getLogger(__name__)

_SLOWEST_REQUEST = 60.0  # seconds between two requests for more time (RFC 2131 section 4.4.5)


class GoneError(Exception):
    """The interface is gone, and the binding with it."""


class Binding:
    """The binding of one interface."""

    def __init__(self, record: Record, store: Store, timing: Timing, prefix: str = "") -> None:
        """`prefix` stands before the paths of namespaces: where the host's files are for the keeper."""
        self.record = record
        self._store, self._timing, self._prefix = store, timing, prefix
        self._pauses = timing.pauses()
        self._kept: tuple[SourceRoute, ...] = ()

    def __str__(self) -> str:
        return str(self.record.client)

    @property
    def lease(self) -> Lease:
        """What the server has granted."""
        return self.record.lease

    @classmethod
    async def acquire(cls, client: Client, cookie: str, store: Store, timing: Timing, prefix: str = "") -> Self:
        """Ask for an address until there is one, and write it down. Raises CniError, OSError."""
        binding = cls(await acquisition.acquire(client, cookie, timing, prefix), store, timing, prefix)
        try:
            store.write(binding.record)
        except CniError:
            binding.give_back()
            raise
        return binding

    async def keep(self) -> None:
        """Keep the address for as long as the interface is there; then forget it."""
        try:
            while True:
                await self._rest(await self._turn())
        except GoneError as gone:
            log.info("%s: %s: its lease of %s is left to expire", self, gone, self.lease.address)
            self._store.remove(self.record.client.owner)

    async def _rest(self, until: float) -> None:
        """Wait, with a look at the interface now and then. Raises GoneError."""
        while (left := until - now()) > 0:
            await asyncio.sleep(min(left, self._timing.look_every))
            self.expect_alive()

    async def _turn(self) -> float:
        """Do what is due, come what may; when the next turn is. Raises GoneError."""
        try:
            return await self._do_what_is_due()
        except (CniError, OSError, ValueError) as error:
            self.expect_alive()
            log.warning("%s: %s", self, error)
            again = now() + next(self._pauses)
            return again if now() >= self.lease.expires_at else min(again, self.lease.expires_at)

    async def _do_what_is_due(self) -> float:
        lease, time = self.lease, now()
        if self.record.withdrawn:
            return await self._begin_anew()
        if time < lease.renew_at:
            return lease.renew_at
        try:
            if time >= lease.expires_at:
                raise RefusedError("the lease has expired")
            with self._interface() as (place, link):
                with exchange.over(link, self.record.client, self._timing) as talk:
                    new = await (talk.renew(lease) if time < lease.rebind_at else talk.rebind(lease))
                self._adopt(new, place, link)
        except NoAnswerError:
            log.info("%s: no server answers about %s", self, lease.address)
            return self._next_request(lease.rebind_at if time < lease.rebind_at else lease.expires_at)
        except RefusedError as refused:
            log.warning("%s: %s: %s is withdrawn", self, refused, lease.cidr)
            self._withdraw()
            return now()
        return self.lease.renew_at

    def _next_request(self, end: float) -> float:
        """After half of the time that is left, but no more often than once a minute; in a short lease, often enough."""
        least = min(_SLOWEST_REQUEST, self.lease.duration / 16)
        return min(now() + max((end - now()) / 2, least), end)

    async def _begin_anew(self) -> float:
        """Ask for an address as at first, for the former one if it is still to be had."""
        with self._interface() as (place, link):
            try:
                with exchange.over(link, self.record.client, self._timing) as talk:
                    new = await talk.acquire(self.lease.address)
            except (NoAnswerError, RefusedError) as error:
                log.info("%s: there is no address: %s", self, str(error) or "no server answers")
                return now() + next(self._pauses)
            self._adopt(new, place, link)
        return self.lease.renew_at

    def _adopt(self, new: Lease, place: Namespace, link: Link) -> None:
        """Take over what the server grants now; if it is something else, the interface is changed."""
        old, priority = self.lease, self.record.client.priority
        before = () if self.record.withdrawn else (old.cidr,)
        routes = old.routes(priority) if before else ()
        if before != (new.cidr,) or routes != new.routes(priority):
            log.warning("%s: %s instead of %s", self, new.cidr, old.cidr if before else "none")
            change = RouteChange(routes, new.routes(priority), self._kept)
            place.addresses.replace(link, before, (new.cidr,), change)
            place.addresses.announce(link)
        if new.mtu and new.mtu != old.mtu:
            adopt_mtu(link, new.mtu)
        self._kept, self._pauses = (), self._timing.pauses()
        self._write(self.record.model_copy(update={"lease": new, "withdrawn": False}))
        log.info("%s: %s for %g s more", self, new.cidr, new.duration)

    def _withdraw(self) -> None:
        """Take the address from the interface: it is, or will be, somebody else's."""
        routes = self.lease.routes(self.record.client.priority)
        with self._interface() as (place, link):
            self._kept = place.routes.added_by_others(link, routes)
            place.addresses.replace(link, (self.lease.cidr,), (), RouteChange(routes))
        self._write(self.record.model_copy(update={"withdrawn": True}))

    def _write(self, record: Record) -> None:
        self.record = record
        self._store.write(record)

    def release(self) -> None:
        """Give the address back to the server if that is possible, and forget it. Raises CniError, code 5."""
        self.give_back()
        self._store.remove(self.record.client.owner)

    def give_back(self) -> None:
        """Give the address back to the server, if that is possible."""
        try:
            if not self.record.withdrawn and now() < self.lease.expires_at:
                with self._interface() as (_, link), exchange.over(link, self.record.client, self._timing) as talk:
                    talk.release(self.lease)
                log.info("%s: %s is given back to %s", self, self.lease.address, self.lease.server)
        except (GoneError, CniError, OSError) as error:
            log.warning("%s: %s cannot be given back and is left to expire: %s", self, self.lease.address, error)

    def expect_alive(self) -> None:
        """Raise GoneError unless the interface is there."""
        with self._interface():
            pass

    @contextmanager
    def _interface(self) -> Iterator[tuple[Namespace, Link]]:
        """The interface with its namespace, if it is the one that was bound. Raises GoneError."""
        record = self.record
        try:
            place = Namespace.at(self._prefix + record.client.netns)
        except CniError as error:
            raise GoneError(str(error)) from None
        try:
            if place.cookie != record.cookie:
                raise GoneError(f"{record.client.netns} is another namespace by now")
            link = place.find_link(record.client.ifname)
            if link is None or link.index != record.index:
                raise GoneError(f"{record.client.ifname} is gone")
            yield place, link
        finally:
            place.close()
