"""Host ports: ports of the host that lead to ports of a container, as values that both firewalls read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError, Code

MARK_BIT = 13  # of a packet that is to be masqueraded, as the Go plugin has it


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host and the port of the container it leads to.

    Without `host_ip` it is a port of every address of the host; 0.0.0.0 and :: are every address of their family.
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
        """The one address of the host whose port it is; None if it is a port of all."""
        return None if self.host_ip is None or self.host_ip.is_unspecified else self.host_ip

    def is_of(self, version: int) -> bool:
        """Whether it is a port of addresses of this family."""
        return self.host_ip is None or self.host_ip.version == version


class UdpPort(NamedTuple):
    """A port of the host whose UDP flows the kernel may remember; None is every address of the family."""

    version: int
    port: int
    address: Address | None


@dataclass(frozen=True)
class HostPorts:
    """The ports of the host that lead to one container, its addresses, and whose packets are masqueraded."""

    mappings: Sequence[PortMapping] = ()
    targets: Sequence[Cidr] = ()  # of each family one
    snat: bool = True
    masq_all: bool = False
    mark_bit: int = MARK_BIT
    set_mark_chain: str = ""
    conditions: Mapping[int, Sequence[str]] = field(default_factory=dict)  # by family, as the firewall writes them

    def __bool__(self) -> bool:
        return any(self.of(target.version) for target in self.targets)

    def of(self, version: int) -> list[PortMapping]:
        """The mappings of a family, each port once: the first counts."""
        first: dict[str, PortMapping] = {}
        for mapping in self.mappings:
            if mapping.is_of(version):
                first.setdefault(str(mapping), mapping)
        return list(first.values())

    def by_family(self) -> Iterator[tuple[Cidr, list[PortMapping]]]:
        """Each address of the container with the mappings that lead to it."""
        for target in self.targets:
            if mappings := self.of(target.version):
                yield target, mappings

    def udp_ports(self) -> list[UdpPort]:
        """The ports whose flows must be forgotten when they begin to lead elsewhere."""
        return [
            UdpPort(target.version, mapping.host_port, mapping.one_address)
            for target, mappings in self.by_family()
            for mapping in mappings
            if mapping.protocol == "udp"
        ]


def taken(port: str, holder: str) -> CniError:
    """The refusal of a port that leads to somebody else."""
    return CniError(
        f"host port {port} is taken: it leads to {holder}",
        code=Code.TRY_AGAIN_LATER,
        details="the DEL of that attachment frees it; or choose another hostPort",
    )
