"""Connection tracking: flows that the kernel remembers, and makes it forget.

A UDP flow that began before its port was published, or while it led to another container, would go on as it began for
as long as packets come: a black hole. (TCP notices by itself.)
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from pycni.kernel import routes
from pycni.kernel.addresses import FAMILIES
from pycni.kernel.door import Door
from pycni.kernel.netfilter import ACK, BODY, CONNTRACK, DUMP, NetfilterSocket, connected
from pycni.kernel.portmappings import UdpPort
from pycni.protocol.address import parse_ip

_GET, _DELETE = 1, 2
_UDP = 17
# What of the original direction the kernel shall compare (since Linux 5.8; older ones list every flow).
_TO_ADDRESS, _PROTOCOL, _TO_PORT = 1 << 1, 1 << 3, 1 << 5


def forget(door: Door, ports: Iterable[UdpPort]) -> None:
    """Forget the UDP flows to these ports of the host's own addresses, and no others."""
    wanted = list(dict.fromkeys(ports))
    if not wanted:
        return
    socket = connected(door)
    for port in wanted:
        for flow in _flows(socket, port):
            if port.address is not None or routes.is_local(door, parse_ip(_destination(flow, port.version))):
                _delete(socket, port.version, flow)


def _flows(socket: NetfilterSocket, port: UdpPort) -> Iterator[Any]:
    """The original directions of the flows to a port."""
    flags = _PROTOCOL | _TO_PORT | (_TO_ADDRESS if port.address else 0)
    proto = {"attrs": [("CTA_PROTO_NUM", _UDP), ("CTA_PROTO_DST_PORT", port.port)]}
    ip = {"attrs": [(f"CTA_IP_V{port.version}_DST", str(port.address))] if port.address else []}
    tuple_ = {"attrs": [("CTA_TUPLE_IP", ip), ("CTA_TUPLE_PROTO", proto)]}
    question = [("CTA_TUPLE_ORIG", tuple_), ("CTA_FILTER", {"attrs": [("CTA_FILTER_ORIG_FLAGS", flags)]})]
    for answer in socket.ask(CONNTRACK, _GET, FAMILIES[port.version], _encoded(question), flags=DUMP):
        message = _message(answer)
        message.decode()
        flow = message.get_attr("CTA_TUPLE_ORIG")
        of = flow.get_attr("CTA_TUPLE_PROTO")
        if (of.get_attr("CTA_PROTO_NUM"), of.get_attr("CTA_PROTO_DST_PORT")) != (_UDP, port.port):
            continue
        if port.address is None or parse_ip(_destination(flow, port.version)) == port.address:
            yield flow


def _destination(flow: Any, version: int) -> str:
    return str(flow.get_nested("CTA_TUPLE_IP", f"CTA_IP_V{version}_DST"))


def _delete(socket: NetfilterSocket, version: int, flow: Any) -> None:
    with suppress(FileNotFoundError):  # it has ended meanwhile
        socket.ask(CONNTRACK, _DELETE, FAMILIES[version], _encoded([("CTA_TUPLE_ORIG", _plain(flow))]), flags=ACK)


def _plain(value: Any) -> Any:
    """A decoded attribute as pyroute2 takes it for encoding."""
    return {"attrs": [(name, _plain(item) if hasattr(item, "get_attr") else item) for name, item in value["attrs"]]}


def _encoded(attributes: list[tuple[str, Any]]) -> bytes:
    message = _message()
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)[BODY:]


def _message(*data: bytes) -> Any:
    """A message of pyroute2's, whose module brings asyncio along: it is loaded for UDP ports alone."""
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

    return nfct_msg(*data)
