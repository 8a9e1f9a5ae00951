"""A connection from a plugin, on the lease daemon's side of the socket."""

import asyncio
import socket

from pycni.sdk import peer_credentials

from .daemon_protocol import MAX_LINE, TIMEOUT, Document, encode, parse

_GO_REQUEST = b"CONNECT "  # the start of a request of the Go plugin
_GO_ANSWER = b"HTTP/1.0 501 this is the DHCP lease daemon of pycni\n\n"


class PluginConnection:
    """A connection from a plugin."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    @property
    def is_trusted(self) -> bool:
        """Return whether the peer runs as root or as the daemon's own user."""
        return peer_credentials(self._connection).is_trusted

    async def receive(self) -> Document | None:
        """Return the request; None if the peer has hung up or is the Go plugin. Raise ValueError, TimeoutError."""
        data = b""
        async with asyncio.timeout(TIMEOUT):
            while not data.endswith(b"\n") and len(data) < MAX_LINE:
                chunk = await self._loop.sock_recv(self._connection, 1 << 16)
                if not chunk:
                    return None
                data += chunk
                if data.startswith(_GO_REQUEST):
                    await self._loop.sock_sendall(self._connection, _GO_ANSWER)
                    return None
        return parse(data)

    async def announce_timeout(self, seconds: float) -> None:
        """Tell the plugin how many seconds the answer may take."""
        await self._loop.sock_sendall(self._connection, encode({"within": seconds}))

    async def answer(self, document: Document) -> None:
        """Send the answer. Raise TimeoutError."""
        async with asyncio.timeout(TIMEOUT):
            await self._loop.sock_sendall(self._connection, encode(document))

    async def closed(self) -> None:
        """Return when the plugin has closed the connection."""
        while await self._loop.sock_recv(self._connection, 1):
            pass
