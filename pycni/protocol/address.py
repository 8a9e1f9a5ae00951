"""IP addresses and CIDR texts as CNI documents write them (P-283, P-284)."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from socket import AF_INET, inet_pton

Address = IPv4Address | IPv6Address
Cidr = IPv4Interface | IPv6Interface  # an address and a prefix length; host bits are kept

_REMEMBERED = 128
_PREFIX = re.compile(r"[0-9]{1,9}")


def parse_ip(text: object) -> Address:
    """The address; an IPv4-mapped IPv6 address is its IPv4 one. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"invalid IP address: {text}")
    return _parse_ip(text)


def parse_cidr(text: object) -> Cidr:
    """The address with its prefix length, host bits kept. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"invalid CIDR address: {text}")
    return _parse_cidr(text)


# The same few come again and again, within a call and from one to the next.
@lru_cache(_REMEMBERED)
def to_cidr(address: Address, prefix_length: int) -> Cidr:
    """The address with a prefix length. Raises ValueError if that is none."""
    interface = IPv4Interface if address.version == 4 else IPv6Interface
    return interface((int(address), prefix_length))


@lru_cache(_REMEMBERED)
def _parse_ip(text: str) -> Address:
    try:
        if "%" in text or not text.isascii():
            raise ValueError
        address = IPv6Address(text) if ":" in text else IPv4Address(inet_pton(AF_INET, text))
    except (ValueError, OSError):
        raise ValueError(f"invalid IP address: {text}") from None
    return address if address.version == 4 else address.ipv4_mapped or address


@lru_cache(_REMEMBERED)
def _parse_cidr(text: str) -> Cidr:
    try:
        ip_text, slash, prefix_text = text.partition("/")
        if not slash or not _PREFIX.fullmatch(prefix_text):
            raise ValueError
        address, prefix = _parse_ip(ip_text), int(prefix_text)
        if prefix > (128 if ":" in ip_text else 32):
            raise ValueError
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    if isinstance(address, IPv4Address):
        return IPv4Interface((address, max(prefix - 96, 0) if ":" in ip_text else prefix))
    return IPv6Interface((address, prefix))
