"""The keeper of all bindings: it makes them when plugins ask, keeps them, and gives them back; a thread is enough."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pycni.sdk import CniError, Code, Owner, version

from .binding import Binding, GoneError
from .caller import Caller
from .client import Client
from .conversation import Document
from .lease import now
from .leftovers import for_each
from .store import Store
from .timing import Timing

log = logging.getLogger(__name__)

_ACCEPT_PAUSE = 0.1  # seconds, until there may be descriptors again
_QUICK = 10.0  # seconds, for all that no DHCP server is asked about


class Keeper:
    """Keeps the bindings of a store; runs in an event loop of its own, once."""

    def __init__(self, store: Store, timing: Timing, prefix: str = "") -> None:
        self._store, self._timing, self._prefix = store, timing, prefix
        self._bindings: dict[str, Binding] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._acquiring: dict[str, asyncio.Task[Binding]] = {}
        self._callers: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled: then the leases stay, in the store, for the next keeper."""
        listener.setblocking(False)
        for record in self._store.records():
            self._keep(Binding(record, self._store, self._timing, self._prefix))
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("cannot accept: %s", error)
                    await asyncio.sleep(_ACCEPT_PAUSE)
                    continue
                task = asyncio.create_task(self._serve(connection))
                self._callers.add(task)
                task.add_done_callback(self._callers.discard)
        finally:
            self._cancel_all()

    def _cancel_all(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._callers, *self._acquiring.values(), *self._keeping.values()]
        for task in tasks:
            task.cancel()

    def _keep(self, binding: Binding) -> None:
        key = binding.record.client.owner.key
        self._bindings[key] = binding
        task = self._keeping[key] = asyncio.create_task(binding.keep(), name=str(binding))
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: str, task: "asyncio.Task[None]") -> None:
        if self._keeping.get(key) is task:
            del self._keeping[key], self._bindings[key]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s is kept no more", task.get_name(), exc_info=error)

    def _let_go(self, key: str) -> Binding | None:
        """Keep the binding no more; it is returned."""
        if task := self._keeping.pop(key, None):
            task.cancel()
        return self._bindings.pop(key, None)

    async def _serve(self, connection: socket.socket) -> None:
        """One caller to the end; nothing that happens reaches the others."""
        with connection:
            try:
                caller = Caller(connection)
                request = await caller.request() if caller.is_trusted else None
                if request is not None:
                    await self._answer(caller, request)
            except (OSError, ValueError, TimeoutError) as error:
                log.warning("not a call of the dhcp plugin: %s", error)

    async def _answer(self, caller: Caller, request: Document) -> None:
        verbs: dict[str, Callable[[Caller, Document], Awaitable[Document]]] = {
            "acquire": self._acquire,
            "check": self._check,
            "release": self._release,
            "collect": self._collect,
            "status": self._status,
        }
        try:
            verb = verbs.get(request.get("do", ""))
            if verb is None:
                raise CniError(
                    f"the DHCP keeper cannot {request.get('do')}", details="it is of another version of pycni"
                )
            patience = self._timing.resend_timeout + self._timing.timeout if request["do"] == "acquire" else _QUICK
            await caller.promise(patience)
            answer = await verb(caller, request)
        except (CniError, OSError, ValueError, LookupError, TypeError) as error:
            answer = {"error": json.loads(CniError.from_exception(error).to_json(version.NEWEST))}
        await caller.answer(answer)

    async def _status(self, _caller: Caller, _request: Document) -> Document:
        return {"bindings": len(self._bindings)}

    async def _acquire(self, caller: Caller, request: Document) -> Document:
        client = Client.model_validate_json(json.dumps(request["client"]))
        cookie, key = str(request["incarnation"]), client.owner.key
        if key in self._acquiring:
            raise CniError(
                f"an ADD of {client} is on its way already", code=Code.TRY_AGAIN_LATER, details="wait for its end"
            )
        binding = self._bindings.get(key)
        if binding is None or not _is_good(binding, client, cookie):
            if self._let_go(key):
                self._store.remove(client.owner)  # the server knows the client again, and its address
            binding = await self._acquire_for(caller, client, cookie)
        return {"lease": binding.lease.model_dump(mode="json", by_alias=True)}

    async def _acquire_for(self, caller: Caller, client: Client, cookie: str) -> Binding:
        """A new binding; what is acquired for a caller that has gone away is given back."""
        key = client.owner.key
        task = self._acquiring[key] = asyncio.create_task(self._acquire_anew(client, cookie))
        gone = asyncio.create_task(caller.hung_up())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                log.info("%s: nobody waits for a lease any more", client)
                self._release_now(client.owner)
            return await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # it is the keeper that ends
            raise CniError(
                f"the ADD of {client} was ended by its DEL", code=Code.TRY_AGAIN_LATER, details="add it again"
            ) from None
        finally:
            del self._acquiring[key]
            gone.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await gone

    async def _acquire_anew(self, client: Client, cookie: str) -> Binding:
        binding = await Binding.acquire(client, cookie, self._store, self._timing, self._prefix)
        self._keep(binding)  # in the same breath, so that a DEL finds it: here, or on its way
        return binding

    async def _check(self, _caller: Caller, request: Document) -> Document:
        owner = Owner(*request["owner"])
        binding = self._bindings.get(owner.key)
        if binding is None:
            raise CniError(
                f"there is no DHCP lease for {owner.ifname} of container {owner.container_id}",
                details="its interface was gone, or the keeper has lost its store; delete and add the container",
            )
        try:
            binding.expect_alive()
        except GoneError as gone:
            raise CniError(f"the interface of the DHCP lease of {binding.lease.cidr} is gone: {gone}") from None
        return {
            "lease": binding.lease.model_dump(mode="json", by_alias=True),
            "incarnation": binding.record.cookie,
            "valid": not binding.record.withdrawn and now() < binding.lease.expires_at,
        }

    async def _release(self, _caller: Caller, request: Document) -> Document:
        self._release_now(Owner(*request["owner"]))
        return {}

    def _release_now(self, owner: Owner) -> None:
        if task := self._acquiring.get(owner.key):
            task.cancel()
        if binding := self._let_go(owner.key):
            binding.release()

    async def _collect(self, _caller: Caller, request: Document) -> Document:
        valid = {Owner(*owner).key for owner in request["valid"]}
        owners = [binding.record.client.owner for binding in self._bindings.values()]
        stale = [owner for owner in owners if owner.network == request["network"] and owner.key not in valid]
        for_each(stale, self._release_now)
        return {}


def _is_good(binding: Binding, client: Client, cookie: str) -> bool:
    """Whether an ADD that comes again has this binding already."""
    record = binding.record
    try:
        binding.expect_alive()
    except GoneError:
        return False
    return record.client == client and record.cookie == cookie and not record.withdrawn
