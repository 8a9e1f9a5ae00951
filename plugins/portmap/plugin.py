"""portmap: let ports of the host lead to ports of a container.

client ──► host:8080 ── DNAT ──► 10.22.0.2:80 container
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pycni.sdk import (
    Address,
    AfterValidator,
    Attachment,
    BeforeValidator,
    CniError,
    Field,
    HostPorts,
    Model,
    NetConf,
    Network,
    Plugin,
    PortMapping,
    Result,
    field_validator,
    model_validator,
)

_BACKENDS = ("iptables", "nftables")


def _port(of: str) -> AfterValidator:
    def check(port: int) -> int:
        if not 1 <= port <= 65535:
            raise ValueError(f"Invalid {of} port number: {port} (must be between 1 and 65535)")
        return port

    return AfterValidator(check)


class Mapping(Model):
    """One entry of portMappings."""

    host_port: Annotated[int, _port("host")]
    container_port: Annotated[int, _port("container")]
    protocol: Annotated[Literal["tcp", "udp", "sctp"], BeforeValidator(lambda text: str(text).lower() or "tcp")] = "tcp"
    host_ip: Annotated[Address | None, BeforeValidator(lambda text: text or None)] = Field(None, alias="hostIP")


class RuntimeConfig(Model):
    """What the runtime fills in, by the capability portMappings."""

    port_mappings: tuple[Mapping, ...] = ()


class PortmapConfig(NetConf):
    """The options of portmap; README.md explains them."""

    backend: str = ""
    snat: bool = True
    masq_all: bool = False
    mark_masq_bit: int | None = None
    external_set_mark_chain: str = ""
    conditions_v4: tuple[str, ...] = ()
    conditions_v6: tuple[str, ...] = ()
    runtime_config: RuntimeConfig = RuntimeConfig()

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        if backend not in ("", *_BACKENDS):
            raise ValueError(f'unrecognized backend "{backend}": there are iptables and nftables')
        return backend

    @field_validator("mark_masq_bit")
    @classmethod
    def _bit_exists(cls, bit: int | None) -> int | None:
        if bit is not None and not 0 <= bit <= 31:
            raise ValueError(f"MasqMarkBit must be between 0 and 31, not {bit}")
        return bit

    @field_validator("conditions_v4", "conditions_v6")
    @classmethod
    def _is_one_rule(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        if any(mark in word for word in conditions for mark in "\n;"):
            raise ValueError("conditions belong to one rule: no line break and no semicolon")
        return conditions

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.external_set_mark_chain and self.mark_masq_bit is not None:
            raise ValueError("Cannot specify externalSetMarkChain and markMasqBit")
        for backend in _BACKENDS:
            others = [name for name, of in self._specific_options() if of != backend]
            wanted = self.backend or self.chosen_backend
            if backend == wanted and others:
                other = "nftables" if backend == "iptables" else "iptables"
                raise ValueError(
                    f"{backend} backend was requested but configuration contains {other}-specific options "
                    f"[{' '.join(others)}]"
                )
        return self

    def _specific_options(self) -> Iterator[tuple[str, str]]:
        """The options that only one backend understands, with its name."""
        if self.external_set_mark_chain:
            yield "externalSetMarkChain", "iptables"
        for name, words in (("conditionsV4", self.conditions_v4), ("conditionsV6", self.conditions_v6)):
            if words:
                yield name, "iptables" if words[0][:1] in ("-", "!") else "nftables"

    @property
    def chosen_backend(self) -> str:
        """The backend that is named or that the options need; empty if any will do."""
        return self.backend or next((backend for _, backend in self._specific_options()), "")

    def host_ports(self, cni: Attachment[Self]) -> HostPorts:
        """The ports to publish: at the first address of the interface in each family."""
        first = {ip.address.version: ip.address for ip in reversed(cni.prev_ips)}
        mappings = self.runtime_config.port_mappings
        return HostPorts(
            [PortMapping(m.host_port, m.container_port, m.protocol, m.host_ip) for m in mappings],
            [first[version] for version in sorted(first)],
            snat=self.snat,
            masq_all=self.masq_all,
            **({} if self.mark_masq_bit is None else {"mark_bit": self.mark_masq_bit}),
            set_mark_chain=self.external_set_mark_chain,
            conditions={4: self.conditions_v4, 6: self.conditions_v6},
        )


class Portmap(Plugin[PortmapConfig]):
    """The plugin; without mappings it does nothing."""

    config = PortmapConfig

    def add(self, cni: Attachment[PortmapConfig]) -> Result:
        """Publish the ports of the container that earlier plugins of the chain made."""
        if cni.prev_result is None:
            raise CniError(
                "must be called as chained plugin: prevResult is missing",
                details="portmap stands behind a plugin that makes an interface, such as bridge",
            )
        if ports := cni.config.host_ports(cni):
            cni.host.create_host_ports(ports, cni.owner, backend=cni.config.chosen_backend)
        return cni.prev_result

    def check(self, cni: Attachment[PortmapConfig]) -> None:
        """See that the ports lead to the container."""
        cni.required_prev_result  # noqa: B018 - the specification demands it
        if ports := cni.config.host_ports(cni):
            cni.host.expect_host_ports(ports, cni.owner, backend=cni.config.chosen_backend)

    def delete(self, cni: Attachment[PortmapConfig]) -> None:
        """Take all ports back, whatever the configuration says by now."""
        cni.host.delete_host_ports(cni.owner, cni.config.host_ports(cni))

    def status(self, cni: Network[PortmapConfig]) -> None:
        """Ready if the firewall is."""
        cni.host.expect_publishing(cni.config.chosen_backend)

    def gc(self, cni: Network[PortmapConfig]) -> None:
        """Take back the ports of all attachments that are not valid any more."""
        cni.host.delete_host_ports(cni.stale)
        cni.host.delete_unregistered_host_ports(cni.unused_addresses)
