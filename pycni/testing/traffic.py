"""Services and their clients in throwaway namespaces: who is reached, and as whom."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.testing.topology import Netns

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_POLL = 0.05  # seconds, in which a service notices its end


def _socket(netns: Netns, protocol: str, address: str) -> socket.socket:
    """A socket of the namespace; it stays of that namespace wherever it is used."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.netns.entered():
        return socket.socket(family, _KINDS[protocol])


class WhoamiService:
    """A service on a port of a namespace; it answers with its name and the address it was asked from."""

    def __init__(self, netns: Netns, port: int, name: str, protocol: str, address: str) -> None:
        self._name = name
        self._socket = _socket(netns, protocol, address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind((address, port))
        self._socket.settimeout(_POLL)
        self._ended = threading.Event()
        if protocol == "tcp":
            self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve_tcp if protocol == "tcp" else self._serve_udp)
        self._thread.start()

    def close(self) -> None:
        """End it."""
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
    """A service for as long as the block lasts: of IPv4 unless the address is one of IPv6, such as "::"."""
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
    """What a service answers to somebody in the namespace: its name and the address that it sees; "" for nothing."""
    with _socket(netns, protocol, address) as client:
        client.settimeout(seconds)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if source is not None:
                client.bind(source)
            client.connect((address, port))
            client.send(b"who?")
            return client.recv(256).decode()
        except OSError:  # refused, unreachable or without an answer in time
            return ""
