"""portmap: publish container ports on ports of the host (DNAT).

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


def _port_number(kind: str) -> AfterValidator:
    def check(port: int) -> int:
        if not 1 <= port <= 65535:
            raise ValueError(f"Invalid {kind} port number: {port} (must be between 1 and 65535)")
        return port

    return AfterValidator(check)


class PortMappingEntry(Model):
    """An entry of `portMappings`."""

    host_port: Annotated[int, _port_number("host")]
    container_port: Annotated[int, _port_number("container")]
    protocol: Annotated[Literal["tcp", "udp", "sctp"], BeforeValidator(lambda text: str(text).lower() or "tcp")] = "tcp"
    host_ip: Annotated[Address | None, BeforeValidator(lambda text: text or None)] = Field(None, alias="hostIP")


class PortmapRuntimeConfig(Model):
    """The `runtimeConfig` object: the mappings from the runtime (capability `portMappings`)."""

    port_mappings: tuple[PortMappingEntry, ...] = ()


class PortmapConfig(NetConf):
    """Configuration of portmap. README.md describes the options."""

    backend: str = ""
    snat: bool = True
    masq_all: bool = False
    mark_masq_bit: int | None = None
    external_set_mark_chain: str = ""
    conditions_v4: tuple[str, ...] = ()
    conditions_v6: tuple[str, ...] = ()
    runtime_config: PortmapRuntimeConfig = PortmapRuntimeConfig()

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        if backend not in ("", *_BACKENDS):
            raise ValueError(f'unrecognized backend "{backend}": use iptables or nftables')
        return backend

    @field_validator("mark_masq_bit")
    @classmethod
    def _bit_is_valid(cls, bit: int | None) -> int | None:
        if bit is not None and not 0 <= bit <= 31:
            raise ValueError(f"MasqMarkBit must be between 0 and 31, not {bit}")
        return bit

    @field_validator("conditions_v4", "conditions_v6")
    @classmethod
    def _conditions_fit_one_rule(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        if any(separator in word for word in conditions for separator in "\n;"):
            raise ValueError("conditions must not contain a line break or a semicolon")
        return conditions

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.external_set_mark_chain and self.mark_masq_bit is not None:
            raise ValueError("Cannot specify externalSetMarkChain and markMasqBit")
        backend = self.chosen_backend
        if unsupported := [name for name, needed in self._specific_options() if needed != backend]:
            other = "nftables" if backend == "iptables" else "iptables"
            raise ValueError(
                f"{backend} backend was requested but configuration contains {other}-specific options "
                f"[{' '.join(unsupported)}]"
            )
        return self

    def _specific_options(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each configured option that only one backend supports, with that backend."""
        if self.external_set_mark_chain:
            yield "externalSetMarkChain", "iptables"
        for name, words in (("conditionsV4", self.conditions_v4), ("conditionsV6", self.conditions_v6)):
            if words:
                yield name, "iptables" if words[0][:1] in ("-", "!") else "nftables"

    @property
    def chosen_backend(self) -> str:
        """Return the configured backend, else the one that an option needs, else ""."""
        return self.backend or next((backend for _, backend in self._specific_options()), "")

    def host_ports(self, cni: Attachment[Self]) -> HostPorts:
        """Return the ports to publish. The targets are the first address of each family of the interface."""
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
    """The portmap plugin. Without port mappings it does nothing."""

    config = PortmapConfig

    def add(self, cni: Attachment[PortmapConfig]) -> Result:
        """Publish the ports. Raise CniError, code 11, if a host port is mapped to another container."""
        if cni.prev_result is None:
            raise CniError(
                "must be called as chained plugin: prevResult is missing",
                details="put portmap into a list, after a plugin that creates an interface, such as bridge",
            )
        if ports := cni.config.host_ports(cni):
            cni.host.firewall.host_ports.create(ports, cni.owner, backend=cni.config.chosen_backend)
        return cni.prev_result

    def check(self, cni: Attachment[PortmapConfig]) -> None:
        """Raise CniError unless every port is mapped to the container."""
        cni.required_prev_result  # noqa: B018 - raises ConfigError if there is none
        if ports := cni.config.host_ports(cni):
            cni.host.firewall.host_ports.expect(ports, cni.owner, backend=cni.config.chosen_backend)

    def delete(self, cni: Attachment[PortmapConfig]) -> None:
        """Remove all mappings of the attachment, with both backends, whatever the configuration is now."""
        cni.host.firewall.host_ports.delete(cni.owner, cni.config.host_ports(cni))

    def status(self, cni: Network[PortmapConfig]) -> None:
        """Raise CniError if the firewall backend does not work."""
        cni.host.firewall.probe(cni.config.chosen_backend)

    def gc(self, cni: Network[PortmapConfig]) -> None:
        """Remove the mappings of stale attachments."""
        cni.host.firewall.host_ports.delete(cni.stale)
        cni.host.firewall.host_ports.delete_unowned(cni.unused_addresses)
