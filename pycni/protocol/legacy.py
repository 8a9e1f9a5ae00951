"""The result format of versions 0.1.0 and 0.2.0: one address per family, no interfaces."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pycni.protocol.address import Address, Cidr
from pycni.protocol.json_object import JsonObject
from pycni.protocol.result import Dns, Document, IpConfig, Result, Route, drop_none


@dataclass(frozen=True, slots=True)
class LegacyIpConfig:
    """The member `ip4` or `ip6`: an address, its gateway and its routes."""

    ip: Cidr
    gateway: Address | None = None
    routes: tuple[Route, ...] = ()

    @classmethod
    def parse(cls, fields: JsonObject | None) -> Self | None:
        """Parse `ip4` or `ip6`. Raises ValueError."""
        if fields is None:
            return None
        return cls(ip=fields.cidr("ip"), gateway=fields.address("gateway"), routes=Route.parse_list(fields))

    def to_document(self) -> Document:
        """Return it as a JSON object."""
        return drop_none(
            {
                "ip": str(self.ip),
                "gateway": None if self.gateway is None else str(self.gateway),
                "routes": [route.to_document() for route in self.routes] or None,
            }
        )


@dataclass(frozen=True, slots=True)
class LegacyResult:
    """A result of version 0.1.0 or 0.2.0."""

    ip4: LegacyIpConfig | None = None
    ip6: LegacyIpConfig | None = None
    dns: Dns = field(default_factory=Dns)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Parse a result document of version 0.1.0 or 0.2.0. Raises ValueError."""
        fields = JsonObject(document, ("ip4", "ip6", "dns"))
        names = ("ip", "gateway", "routes")
        return cls(
            ip4=LegacyIpConfig.parse(fields.object("ip4", names)),
            ip6=LegacyIpConfig.parse(fields.object("ip6", names)),
            dns=Dns.parse(fields),
        )

    @classmethod
    def downgrade(cls, result: Result) -> Self:
        """Convert a newer result: keep the first address of each family, with the routes of that family.

        Raises ValueError if the result has no address (docs/reference/protocol.md#result-conversion).
        """
        configs = {}
        for version in ("4", "6"):
            first = next((ip for ip in result.ips if ip.version == version), None)
            if first is not None:
                routes = tuple(
                    Route(route.dst, route.gw) for route in result.routes if str(route.dst.version) == version
                )
                configs[version] = LegacyIpConfig(first.address, first.gateway, routes)
        if not configs:
            raise ValueError("cannot convert: no valid IP addresses")
        return cls(configs.get("4"), configs.get("6"), result.dns)

    def upgrade(self) -> Result:
        """Convert to the newer format.

        The version of an address is that of its member, `ip4` or `ip6`, even if the address is of the other family, as
        with the Go library (docs/reference/protocol.md#result-conversion).
        """
        configs = [(version, config) for version, config in (("4", self.ip4), ("6", self.ip6)) if config]
        return Result(
            ips=tuple(IpConfig(config.ip, config.gateway, declared_version=version) for version, config in configs),
            routes=tuple(route for _, config in configs for route in config.routes),
            dns=self.dns,
        )

    def to_document(self, cni_version: str) -> Document:
        """Return a JSON document of version 0.1.0 or 0.2.0."""
        return drop_none(
            {
                "cniVersion": cni_version,
                "ip4": self.ip4 and self.ip4.to_document(),
                "ip6": self.ip6 and self.ip6.to_document(),
                "dns": self.dns.to_document(),
            }
        )
