"""Network services that answer with the address of their client, to test which service is reached and from where."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.testing.topology import Netns

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_POLL_INTERVAL = 0.05  # seconds between checks whether a service is to stop


def _socket(netns: Netns, protocol: str, address: str) -> socket.socket:
    """Return a socket in the namespace. It stays there when the thread returns to its own namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.netns.enter():
        return socket.socket(family, _KINDS[protocol])


class WhoamiService:
    """A service that answers each client with its name and the IP address that the client has for it."""

    def __init__(self, netns: Netns, port: int, name: str, protocol: str, address: str) -> None:
        self._name = name
        self._socket = _socket(netns, protocol, address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind((address, port))
        self._socket.settimeout(_POLL_INTERVAL)
        self._ended = threading.Event()
        if protocol == "tcp":
            self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve_tcp if protocol == "tcp" else self._serve_udp)
        self._thread.start()

    def close(self) -> None:
        """Stop the service."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve_tcp(self) -> None:
        while not self._ended.is_set():
            try:
                connection, peer = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                connection.send(self._answer(peer))

    def _serve_udp(self) -> None:
        while not self._ended.is_set():
            try:
                _, peer = self._socket.recvfrom(64)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(peer), peer)

    def _answer(self, peer: tuple[str, int]) -> bytes:
        return f"{self._name} {peer[0]}".encode()


@contextmanager
def run_whoami(
    netns: Netns, port: int, name: str = "it", *, protocol: str = "tcp", address: str = ""
) -> Iterator[WhoamiService]:
    """Run a service on `port` in the namespace until the block ends. `protocol` is "tcp" or "udp".

    It answers with `name` and the IP address of its client. It listens on IPv4, or on IPv6 if `address` is an IPv6
    address such as "::".

        with run_whoami(container, 80, "web"):
            assert query_whoami(host, "10.1.0.2", 80) == "web 10.1.0.1"
    """
    service = WhoamiService(netns, port, name, protocol, address)
    try:
        yield service
    finally:
        service.close()


def query_whoami(
    netns: Netns,
    address: str,
    port: int,
    *,
    protocol: str = "tcp",
    source: tuple[str, int] | None = None,
    seconds: float = 1.0,
) -> str:
    """Return the answer of a whoami service to a client in the namespace: name and address, as in "web 10.1.0.1".

    The address is that of the client as the service sees it, for example after masquerading. Return "" if the service
    refuses the connection, is unreachable, or does not answer within `seconds`. `source` is the address and port that
    the client binds to.
    """
    with _socket(netns, protocol, address) as client:
        client.settimeout(seconds)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if source is not None:
                client.bind(source)
            client.connect((address, port))
            client.send(b"who?")
            return client.recv(256).decode()
        except OSError:
            return ""
