"""Port mappings: ports of the host and the container's ports to which they are mapped, for both backends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError, Code

MARK_BIT = 13  # default bit of the packet mark that requests masquerading, as in the Go plugin


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host, and the port of the container to which it is mapped.

    host_ip: None for every address of the host; 0.0.0.0 or :: for every address of that family.
    """

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: Address | None = None

    def __str__(self) -> str:
        address = "" if self.one_address is None else f" of {self.one_address}"
        return f"{self.protocol}/{self.host_port}{address}"

    @property
    def one_address(self) -> Address | None:
        """The single host address of the port; None if it is a port of every address."""
        return None if self.host_ip is None or self.host_ip.is_unspecified else self.host_ip

    def has_version(self, version: int) -> bool:
        """Return whether the mapping applies to addresses of this IP version."""
        return self.host_ip is None or self.host_ip.version == version


class UdpPort(NamedTuple):
    """A UDP port of the host whose conntrack entries may have to be deleted; `address` None is every address."""

    version: int
    port: int
    address: Address | None


@dataclass(frozen=True)
class HostPorts:
    """The host ports of one attachment.

    mappings: the ports; if a port occurs twice, the first mapping applies.
    targets: the container's addresses, at most one per IP version, each with the prefix length of its subnet.
    snat: masquerade connections from the container's own subnet and from 127.0.0.1 (hairpin).
    masq_all: masquerade connections from everywhere; needs `snat`.
    mark_bit: bit of the packet mark that requests masquerading (iptables only).
    set_mark_chain: existing chain that sets the mark instead of one of pycni's (iptables only).
    conditions: further matches by IP version, in the language of the backend.
    """

    mappings: Sequence[PortMapping] = ()
    targets: Sequence[Cidr] = ()
    snat: bool = True
    masq_all: bool = False
    mark_bit: int = MARK_BIT
    set_mark_chain: str = ""
    conditions: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.of(target.version) for target in self.targets)

    def of(self, version: int) -> list[PortMapping]:
        """Return the mappings that apply to an IP version, each host port once."""
        first: dict[str, PortMapping] = {}
        for mapping in self.mappings:
            if mapping.has_version(version):
                first.setdefault(str(mapping), mapping)
        return list(first.values())

    def by_family(self) -> Iterator[tuple[Cidr, list[PortMapping]]]:
        """Yield each address of the container that has mappings, with them."""
        for target in self.targets:
            if mappings := self.of(target.version):
                yield target, mappings

    def udp_ports(self) -> list[UdpPort]:
        """Return the UDP ports among the host ports."""
        return [
            UdpPort(target.version, mapping.host_port, mapping.one_address)
            for target, mappings in self.by_family()
            for mapping in mappings
            if mapping.protocol == "udp"
        ]


def port_in_use(port: str, holder: str) -> CniError:
    """Return the error, code 11, for a host port that is mapped to another container; `holder` names it."""
    return CniError(
        f"host port {port} is already mapped to {holder}",
        code=Code.TRY_AGAIN_LATER,
        details="a DEL of that attachment frees the port; otherwise choose another hostPort",
    )
