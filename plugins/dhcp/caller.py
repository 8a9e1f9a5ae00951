"""A plugin that calls the keeper, as the keeper sees it."""

import asyncio
import socket

from pycni.sdk import peer_credentials

from .conversation import LONGEST, PATIENCE, Document, line, parse

_GO = b"CONNECT "  # how the Go plugin begins
_TO_GO = b"HTTP/1.0 501 this is the DHCP keeper of pycni\n\n"


class Caller:
    """A plugin that calls, for the keeper."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    @property
    def is_trusted(self) -> bool:
        """Whether it is root, or who we are."""
        return peer_credentials(self._connection).is_trusted

    async def request(self) -> Document | None:
        """What it wants; None if it is nothing that we understand."""
        data = b""
        async with asyncio.timeout(PATIENCE):
            while not data.endswith(b"\n") and len(data) < LONGEST:
                chunk = await self._loop.sock_recv(self._connection, 1 << 16)
                if not chunk:
                    return None
                data += chunk
                if data.startswith(_GO):
                    await self._loop.sock_sendall(self._connection, _TO_GO)
                    return None
        return parse(data)

    async def promise(self, seconds: float) -> None:
        """Say how long the answer may take."""
        await self._loop.sock_sendall(self._connection, line({"within": seconds}))

    async def answer(self, document: Document) -> None:
        """Answer."""
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_sendall(self._connection, line(document))

    async def hung_up(self) -> None:
        """Return when it has gone away."""
        while await self._loop.sock_recv(self._connection, 1):
            pass
