"""The lease daemon: acquires, renews and releases the leases of all attachments, on behalf of the plugin.

It is a single-threaded asyncio server: a task per lease renews it, and a task per connection serves a plugin.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pycni.sdk import CniError, Code, Owner, version

from .binding import Binding, InterfaceGoneError
from .client import DhcpClient
from .daemon_protocol import Document
from .lease import now
from .lease_store import LeaseStore
from .plugin_connection import PluginConnection
from .release import for_each
from .timing import Timing

log = logging.getLogger(__name__)

_ACCEPT_PAUSE = 0.1  # seconds, after accept() failed for lack of file descriptors
_ANSWER_TIMEOUT = 10.0  # seconds, for requests that need no DHCP server


class LeaseDaemon:
    """The lease daemon of a store. An instance runs once, in an event loop of its own."""

    def __init__(self, store: LeaseStore, timing: Timing, host_prefix: str = "") -> None:
        self._store, self._timing, self._host_prefix = store, timing, host_prefix
        self._bindings: dict[str, Binding] = {}
        self._maintaining: dict[str, asyncio.Task[None]] = {}
        self._acquiring: dict[str, asyncio.Task[Binding]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled. The leases stay in the store for the next daemon."""
        listener.setblocking(False)
        for record in self._store.records():
            self._maintain(Binding(record, self._store, self._timing, self._host_prefix))
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_PAUSE)
                    continue
                task = asyncio.create_task(self._serve(connection))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
        finally:
            self._cancel_all()

    def _cancel_all(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._serving, *self._acquiring.values(), *self._maintaining.values()]
        for task in tasks:
            task.cancel()

    def _maintain(self, binding: Binding) -> None:
        """Start the task that renews the lease."""
        key = binding.record.client.owner.key
        self._bindings[key] = binding
        task = self._maintaining[key] = asyncio.create_task(binding.maintain(), name=str(binding))
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: str, task: "asyncio.Task[None]") -> None:
        if self._maintaining.get(key) is task:
            del self._maintaining[key], self._bindings[key]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: the lease is no longer renewed", task.get_name(), exc_info=error)

    def _stop_maintaining(self, key: str) -> Binding | None:
        """Stop the task that renews the lease. Return the binding, or None if there is none."""
        if task := self._maintaining.pop(key, None):
            task.cancel()
        return self._bindings.pop(key, None)

    async def _serve(self, accepted: socket.socket) -> None:
        """Serve one connection. Errors are logged and do not affect other connections."""
        with accepted:
            try:
                connection = PluginConnection(accepted)
                request = await connection.receive() if connection.is_trusted else None
                if request is not None:
                    await self._answer(connection, request)
            except (OSError, ValueError, TimeoutError) as error:
                log.warning("a request on the socket is not from the dhcp plugin: %s", error)

    async def _answer(self, connection: PluginConnection, request: Document) -> None:
        verbs: dict[str, Callable[[PluginConnection, Document], Awaitable[Document]]] = {
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
                    f"the DHCP lease daemon does not know the request {request.get('do')}",
                    details="plugin and daemon belong to different versions of pycni: restart the daemon",
                )
            acquire_timeout = self._timing.resend_timeout + self._timing.timeout
            await connection.announce_timeout(acquire_timeout if request["do"] == "acquire" else _ANSWER_TIMEOUT)
            answer = await verb(connection, request)
        except (CniError, OSError, ValueError, LookupError, TypeError) as error:
            answer = {"error": json.loads(CniError.from_exception(error).to_json(version.NEWEST))}
        await connection.answer(answer)

    async def _status(self, _connection: PluginConnection, _request: Document) -> Document:
        return {"bindings": len(self._bindings)}

    async def _acquire(self, connection: PluginConnection, request: Document) -> Document:
        client = DhcpClient.model_validate_json(json.dumps(request["client"]))
        cookie, key = str(request["incarnation"]), client.owner.key
        if key in self._acquiring:
            raise CniError(
                f"another ADD of {client} is in progress", code=Code.TRY_AGAIN_LATER, details="wait until it ends"
            )
        binding = self._bindings.get(key)
        if binding is None or not _can_reuse(binding, client, cookie):
            if self._stop_maintaining(key):
                self._store.remove(client.owner)  # the server gives the client the same address again
            binding = await self._acquire_for(connection, client, cookie)
        return {"lease": binding.lease.model_dump(mode="json", by_alias=True)}

    async def _acquire_for(self, connection: PluginConnection, client: DhcpClient, cookie: str) -> Binding:
        """Acquire a lease for the plugin. Release it if the plugin closes the connection meanwhile."""
        key = client.owner.key
        task = self._acquiring[key] = asyncio.create_task(self._acquire_and_maintain(client, cookie))
        closed = asyncio.create_task(connection.closed())
        try:
            await asyncio.wait((task, closed), return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                log.info("%s: the plugin no longer waits for the lease", client)
                self._release_now(client.owner)
            return await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # the daemon itself is ending
            raise CniError(
                f"the ADD of {client} was cancelled by its DEL", code=Code.TRY_AGAIN_LATER, details="repeat the ADD"
            ) from None
        finally:
            del self._acquiring[key]
            closed.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await closed

    async def _acquire_and_maintain(self, client: DhcpClient, cookie: str) -> Binding:
        binding = await Binding.acquire(client, cookie, self._store, self._timing, self._host_prefix)
        self._maintain(binding)  # no await in between: DEL finds either the task or the binding
        return binding

    async def _check(self, _connection: PluginConnection, request: Document) -> Document:
        owner = Owner(*request["owner"])
        binding = self._bindings.get(owner.key)
        if binding is None:
            raise CniError(
                f"there is no DHCP lease for {owner.ifname} of container {owner.container_id}",
                details="the interface was deleted, or the lease file was lost: delete and add the container",
            )
        try:
            binding.expect_interface()
        except InterfaceGoneError as gone:
            raise CniError(f"the interface with the DHCP lease of {binding.lease.cidr} is gone: {gone}") from None
        return {
            "lease": binding.lease.model_dump(mode="json", by_alias=True),
            "incarnation": binding.record.cookie,
            "valid": not binding.record.withdrawn and now() < binding.lease.expires_at,
        }

    async def _release(self, _connection: PluginConnection, request: Document) -> Document:
        self._release_now(Owner(*request["owner"]))
        return {}

    def _release_now(self, owner: Owner) -> None:
        if task := self._acquiring.get(owner.key):
            task.cancel()
        if binding := self._stop_maintaining(owner.key):
            binding.release()

    async def _collect(self, _connection: PluginConnection, request: Document) -> Document:
        valid = {Owner(*owner).key for owner in request["valid"]}
        owners = [binding.record.client.owner for binding in self._bindings.values()]
        stale = [owner for owner in owners if owner.network == request["network"] and owner.key not in valid]
        for_each(stale, self._release_now)
        return {}


def _can_reuse(binding: Binding, client: DhcpClient, cookie: str) -> bool:
    """Return whether a repeated ADD of the client can use the existing binding."""
    record = binding.record
    try:
        binding.expect_interface()
    except InterfaceGoneError:
        return False
    return record.client == client and record.cookie == cookie and not record.withdrawn
