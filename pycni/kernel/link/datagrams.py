"""UDP over IPv4 on an interface that may have no address yet, for DHCP.

Packet sockets bypass the kernel's IPv4: neither its routes nor a firewall of the namespace apply to them.
"""

import ctypes
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from pycni.kernel.netns.handle import NetnsHandle

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
_IPV4, _ARP, _UDP = 0x0800, 0x0806, 17
_SO_ATTACH_FILTER = 26
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEADER = struct.Struct("!HHHH")
_INSTRUCTION = struct.Struct("=HBBI")
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT


@dataclass(frozen=True, slots=True)
class Datagram:
    """A received datagram: payload, source address and source MAC."""

    payload: bytes
    source: IPv4Address
    source_mac: str


class DatagramSocket:
    """A socket for one UDP port on one interface."""

    def __init__(self, netns: NetnsHandle, ifname: str, port: int) -> None:
        """Open a non-blocking socket for this UDP port. Raises OSError, as all methods do."""
        self._ifname, self._port = ifname, port
        with netns.enter():
            # Protocol 0 until it is bound: otherwise it would receive the frames of all interfaces at first.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
            self._port_holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            _attach_filter(self.socket, port)
            self.socket.setblocking(False)
            self.socket.bind((ifname, _IPV4))
            # Without a UDP socket on the port, the kernel would answer with ICMP port unreachable.
            with suppress(OSError):
                self._port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
                self._port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode())
                self._port_holder.bind(("0.0.0.0", port))  # noqa: S104 - only on this interface
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets."""
        self.socket.close()
        self._port_holder.close()

    def send(
        self, payload: bytes, *, source: IPv4Address, to: IPv4Address, port: int, mac: str = BROADCAST_MAC
    ) -> None:
        """Send a datagram to `port` of an address on the link, in a frame to `mac`."""
        self._send(encode(payload, source=source, to=to, ports=(self._port, port)), _IPV4, mac)

    def send_arp(self, message: bytes) -> None:
        """Broadcast an ARP message. The answer is not received by this socket."""
        self._send(message, _ARP, BROADCAST_MAC)

    def _send(self, packet: bytes, protocol: int, mac: str) -> None:
        self.socket.sendto(packet, (self._ifname, protocol, 0, 0, bytes.fromhex(mac.replace(":", ""))))

    @staticmethod
    def decode(packet: bytes, sender: tuple[object, ...]) -> Datagram | None:
        """Decode a packet that `socket` received; return None if it is malformed."""
        if len(packet) < _IP.size or packet[0] >> 4 != 4:
            return None
        start = (packet[0] & 0xF) * 4
        (total,) = struct.unpack_from("!H", packet, 2)
        if start < _IP.size or not start + _UDP_HEADER.size <= total <= len(packet):
            return None
        (length,) = struct.unpack_from("!H", packet, start + 4)
        if not _UDP_HEADER.size <= length <= total - start:
            return None
        # The checksum is not verified: packets from the same machine often have none (checksum offload).
        hardware = sender[4]
        assert isinstance(hardware, bytes)
        payload = packet[start + _UDP_HEADER.size : start + length]
        return Datagram(payload, IPv4Address(packet[12:16]), hardware.hex(":"))


def encode(payload: bytes, *, source: IPv4Address, to: IPv4Address, ports: tuple[int, int]) -> bytes:
    """Return an IPv4 packet with the datagram. `ports` are the source and the destination port."""
    length = _UDP_HEADER.size + len(payload)
    pseudo = source.packed + to.packed + struct.pack("!BBH", 0, _UDP, length)
    unsummed = _UDP_HEADER.pack(*ports, length, 0)
    udp = _UDP_HEADER.pack(*ports, length, _checksum(pseudo + unsummed + payload) or 0xFFFF)
    fields = (0x45, 0x10, _IP.size + length, 0, 0, 64, _UDP)
    header = _IP.pack(*fields, 0, source.packed, to.packed)
    return _IP.pack(*fields, _checksum(header), source.packed, to.packed) + udp + payload


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _attach_filter(packets: socket.socket, port: int) -> None:
    """Let the kernel drop everything except unfragmented UDP datagrams to the port without a VLAN tag (BPF).

    Offsets are relative to the IP header.
    """
    load_byte, load_half, load_at, skip_header = 0x30, 0x28, 0x48, 0xB1
    equal, any_of, give = 0x15, 0x45, 0x06
    program = (
        (load_byte, 0, 0, _VLAN_TAG_PRESENT),
        (equal, 0, 8, 0),
        (load_byte, 0, 0, 9),  # protocol
        (equal, 0, 6, _UDP),
        (load_half, 0, 0, 6),  # flags and fragment offset
        (any_of, 4, 0, 0x3FFF),
        (skip_header, 0, 0, 0),
        (load_at, 0, 0, 2),  # destination port
        (equal, 0, 1, port),
        (give, 0, 0, 0xFFFF),
        (give, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in program))
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
