"""The file subnet.env, in which the flannel daemon publishes the networks and subnets of this node."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Self

from pycni.sdk import Cidr, CniError, Code, parse_cidr

_FAMILIES = (("FLANNEL_NETWORK", "FLANNEL_SUBNET"), ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"))


@dataclass(frozen=True)
class SubnetEnv:
    """The cluster networks, the subnets of this node, the MTU, and whether the flannel daemon masquerades."""

    networks: tuple[Cidr, ...]  # IPv4 first
    subnets: tuple[Cidr, ...]  # IPv4 first
    mtu: int
    ip_masq: bool  # True if the flannel daemon masquerades, so that the delegate must not

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raise CniError with code 50 if it cannot be read, with code 7 if it is malformed."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            cause = f"open {path}: {(error.strerror or str(error)).lower()}"
            raise _failure(cause, Code.PLUGIN_NOT_AVAILABLE) from None
        try:
            return cls.parse(text)
        except ValueError as error:
            raise _failure(f"{path} {error}", Code.INVALID_NETWORK_CONFIG) from None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text. Raise ValueError, whose message continues the path of the file."""
        values = dict(_lines(text))
        networks, subnets, missing = [], [], []
        for network_key, subnet_key in _FAMILIES:
            networks += [_cidr(network_key, part) for part in values.get(network_key, "").split(",") if part]
            if values.get(subnet_key):
                subnets.append(_cidr(subnet_key, values[subnet_key]))
        missing += [] if networks else ["FLANNEL_NETWORK"]
        missing += [] if subnets else ["FLANNEL_SUBNET"]
        missing += [key for key in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if not values.get(key)]
        if missing:
            raise ValueError(f"is missing {', '.join(missing)}")
        mtu = values["FLANNEL_MTU"]
        if not mtu.isdecimal():
            raise ValueError(f'has an invalid FLANNEL_MTU: "{mtu}"')
        unique = tuple(dict.fromkeys(networks))
        return cls(unique, tuple(subnets), int(mtu), ip_masq=values["FLANNEL_IPMASQ"] == "true")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        key, found, value = line.partition("=")
        if found:
            yield key.strip(), value.strip()
        elif key.startswith("FLANNEL_"):
            raise ValueError(f'has a line "{line}" without "="')


def _cidr(key: str, text: str) -> Cidr:
    try:
        return ip_interface(parse_cidr(text.strip()).network)
    except ValueError:
        raise ValueError(f'has an invalid {key}: "{text}" is not a network such as 10.244.0.0/16') from None


def _failure(cause: str, code: Code) -> CniError:
    return CniError(
        f"failed to load flannel 'subnet.env' file: {cause}. Check the flannel pod log for this node.",
        code=code,
        details="the flannel daemon writes the file when it has a subnet for the node: check that it is running",
    )
