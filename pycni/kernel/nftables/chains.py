"""Whether nftables has a chain, asked of the kernel in one message (20 microseconds, however many there are).

libnftables would list the chain's rules too, and where iptables made them it loads libxtables for that, which is
neither silent nor made for threads.
"""

import errno
import socket
import struct

from pycni.kernel.door import Door

_NETFILTER = 12  # the netlink family
_GET_CHAIN = 10 << 8 | 4  # of the subsystem nf_tables
_REQUEST_WITH_ACK, _ERROR = 0x5, 2
_TABLE, _CHAIN = 1, 3  # attributes
_FAMILIES = {4: 2, 6: 10}
_HEADER, _GENERIC = struct.Struct("=IHHII"), struct.Struct("=BBH")
# What a kernel without nftables says, and what is not there.
_NONE = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT})


def exists(door: Door, version: int, table: str, chain: str) -> bool:
    """Whether the table of the family ip (`version` 4) or ip6 (6) has the chain. Raises OSError."""
    body = _GENERIC.pack(_FAMILIES[version], 0, 0) + _attribute(_TABLE, table) + _attribute(_CHAIN, chain)
    request = _HEADER.pack(_HEADER.size + len(body), _GET_CHAIN, _REQUEST_WITH_ACK, 1, 0) + body
    try:
        with door.entered():
            channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        with channel:
            channel.send(request)
            answer = channel.recv(1 << 16)
    except OSError as error:
        if error.errno in _NONE:
            return False
        raise
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _ERROR:
        return True
    (code,) = struct.unpack_from("=i", answer, _HEADER.size)
    if -code not in _NONE:
        raise OSError(-code, f'cannot look for chain "{chain}" of nftables')
    return False


def _attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
