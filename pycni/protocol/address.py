"""Parse IP addresses and addresses with a prefix length, as strictly as the Go library.

See docs/reference/protocol.md#addresses.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from socket import AF_INET, inet_pton

Address = IPv4Address | IPv6Address
Cidr = IPv4Interface | IPv6Interface  # an address with a prefix length; host bits may be set
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")  # a MAC address in lower case

_PREFIX_DIGITS = 9  # leading zeros are allowed
_CACHE_SIZE = 128  # the same few addresses occur many times within a call and between calls


def parse_ip(text: object) -> Address:
    """Return the IP address in `text`. An IPv4-mapped IPv6 address becomes an IPv4 address.

    Raises ValueError if `text` is not an address, has leading zeros in an IPv4 octet, or has a zone ("fe80::1%eth0").
    """
    if not isinstance(text, str):
        raise ValueError(f"invalid IP address: {text}")
    return _parse_ip(text)


def parse_cidr(text: object) -> Cidr:
    """Return the address and prefix length in `text`, such as "10.1.0.2/24". Host bits are kept.

    Raises ValueError if the prefix length is missing or too large, or if the address is invalid (see parse_ip).
    """
    if not isinstance(text, str):
        raise ValueError(f"invalid CIDR address: {text}")
    return _parse_cidr(text)


@lru_cache(_CACHE_SIZE)
def to_cidr(address: Address, prefix_length: int) -> Cidr:
    """Return `address` with a prefix length in bits. Raises ValueError if the length does not fit the family."""
    interface = IPv4Interface if address.version == 4 else IPv6Interface
    return interface((int(address), prefix_length))


@lru_cache(_CACHE_SIZE)
def _parse_ip(text: str) -> Address:
    try:
        if "%" in text or not text.isascii():
            raise ValueError
        address = IPv6Address(text) if ":" in text else IPv4Address(inet_pton(AF_INET, text))
    except (ValueError, OSError):
        raise ValueError(f"invalid IP address: {text}") from None
    return address if address.version == 4 else address.ipv4_mapped or address


@lru_cache(_CACHE_SIZE)
def _parse_cidr(text: str) -> Cidr:
    try:
        ip_text, slash, prefix_text = text.partition("/")
        if not (slash and prefix_text.isascii() and prefix_text.isdigit() and len(prefix_text) <= _PREFIX_DIGITS):
            raise ValueError
        address, prefix = _parse_ip(ip_text), int(prefix_text)
        if prefix > (128 if ":" in ip_text else 32):
            raise ValueError
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    if isinstance(address, IPv4Address):
        return IPv4Interface((address, max(prefix - 96, 0) if ":" in ip_text else prefix))
    return IPv6Interface((address, prefix))
