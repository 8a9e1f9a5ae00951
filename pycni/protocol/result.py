"""What ADD answers: interfaces, addresses, routes and DNS, in the shape of specification 1.x (SPEC section 5).

Everything inside pycni works with `Result`. Older shapes exist at the edge alone: `Result.parse` and
`Result.to_document` read and write 0.3.0 to 1.1.0, `pycni.protocol.legacy` knows 0.1.0 and 0.2.0, and
`pycni.protocol.conversion` chooses between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol.address import Address, Cidr, parse_ip
from pycni.protocol.json_object import JsonObject

_RESULT = ("interfaces", "ips", "routes", "dns", "ntp")
_ROUTE = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
_DNS = ("nameservers", "domain", "search", "options")
_INTERFACE = ("name", "mac", "mtu", "sandbox", "socketPath", "pciID")
_IP = ("version", "interface", "address", "gateway")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface; `sandbox` is the path of the container's namespace, empty on the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""

    @classmethod
    def parse(cls, fields: JsonObject, *, v1: bool) -> Self:
        """Read the members of one interface; mtu, socketPath and pciID exist in 1.x alone."""
        basic = cls(name=fields.string("name"), mac=fields.string("mac"), sandbox=fields.string("sandbox"))
        if not v1:
            return basic
        return replace(
            basic,
            mtu=fields.integer("mtu") or 0,
            socket_path=fields.string("socketPath"),
            pci_id=fields.string("pciID"),
        )

    def to_document(self, *, v1: bool) -> Document:
        """As JSON; mtu, socketPath and pciID exist in 1.x alone."""
        document: Document = {"name": self.name, "mac": self.mac or None, "sandbox": self.sandbox or None}
        if v1:
            document |= {"mtu": self.mtu or None, "socketPath": self.socket_path or None, "pciID": self.pci_id or None}
        return drop_none(document, sort_keys=v1)


@dataclass(frozen=True, slots=True)
class IpConfig:
    """An address with its prefix length, its gateway, and the index of its interface in the result."""

    address: Cidr
    gateway: Address | None = None
    interface: int | None = None
    declared_version: str | None = None  # what 0.3.0 to 0.4.0 wrote as version; None: as the address says

    @classmethod
    def parse(cls, fields: JsonObject, *, v1: bool) -> Self:
        """Read one entry of ips."""
        return cls(
            address=fields.cidr("address"),
            gateway=fields.address("gateway"),
            interface=fields.integer("interface"),
            declared_version=None if v1 else fields.string("version"),
        )

    @property
    def version(self) -> str:
        """Its family as 0.3.0 to 0.4.0 write it: "4" or "6" (or what an old plugin wrote there)."""
        return str(self.address.version) if self.declared_version is None else self.declared_version

    def to_document(self, *, v1: bool) -> Document:
        """As JSON; `version` exists before 1.0.0 alone."""
        return drop_none(
            {
                "version": None if v1 else self.version,
                "interface": self.interface,
                "address": str(self.address),
                "gateway": None if self.gateway is None else str(self.gateway),
            },
            sort_keys=v1,
        )


@dataclass(frozen=True, slots=True)
class Route:
    """A route; without `gw` it uses the gateway of its family, and is a device route if there is none."""

    dst: Cidr
    gw: Address | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    @classmethod
    def parse(cls, fields: JsonObject) -> Self:
        """Read one route."""
        return cls(
            dst=fields.cidr("dst"),
            gw=fields.address("gw"),
            mtu=fields.integer("mtu") or 0,
            advmss=fields.integer("advmss") or 0,
            priority=fields.integer("priority") or 0,
            table=fields.integer("table"),
            scope=fields.integer("scope"),
        )

    @classmethod
    def parse_list(cls, fields: JsonObject) -> tuple[Self, ...]:
        """Read the member `routes`."""
        return tuple(cls.parse(item) for item in fields.objects("routes", _ROUTE))

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read one route that stands in a configuration. Raises ValueError."""
        return cls.parse(JsonObject(document, _ROUTE, "a route"))

    def to_document(self, *, v1: bool = False) -> Document:
        """As JSON."""
        return drop_none(
            {
                "dst": str(self.dst),
                "gw": None if self.gw is None else str(self.gw),
                "mtu": self.mtu or None,
                "advmss": self.advmss or None,
                "priority": self.priority or None,
                "table": self.table,
                "scope": self.scope,
            },
            sort_keys=v1,
        )


@dataclass(frozen=True, slots=True)
class Dns:
    """Resolver settings; false when all four are empty."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, parent: JsonObject) -> Self:
        """Read the member `dns`."""
        fields = parent.object("dns", _DNS)
        return cls() if fields is None else cls._read(fields)

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read the dns of a configuration. Raises ValueError."""
        return cls._read(JsonObject(document, _DNS, "dns"))

    @classmethod
    def _read(cls, fields: JsonObject) -> Self:
        return cls(
            nameservers=fields.strings("nameservers"),
            domain=fields.string("domain"),
            search=fields.strings("search"),
            options=fields.strings("options"),
        )

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)

    def to_document(self, *, v1: bool = False) -> Document:
        """As JSON."""
        return drop_none(
            {
                "nameservers": list(self.nameservers) or None,
                "domain": self.domain or None,
                "search": list(self.search) or None,
                "options": list(self.options) or None,
            },
            sort_keys=v1,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What ADD made: the interfaces, the addresses on them, the routes, and how names are resolved.

    `ntp` are time servers. The specification has no such member; whoever does not know it ignores it (P-245).
    """

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)
    ntp: tuple[Address, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any], cni_version: str) -> Self:
        """Read a document of version 0.3.0 or newer. Raises ValueError."""
        v1 = is_v1(cni_version)
        fields = JsonObject(document, _RESULT)
        return cls(
            interfaces=tuple(Interface.parse(item, v1=v1) for item in fields.objects("interfaces", _INTERFACE)),
            ips=tuple(IpConfig.parse(item, v1=v1) for item in fields.objects("ips", _IP)),
            routes=Route.parse_list(fields),
            dns=Dns.parse(fields),
            ntp=fields.extension("ntp", _addresses) or (),
        )

    def to_document(self, cni_version: str) -> Document:
        """As JSON of version 0.3.0 or newer: 1.x with sorted keys and without an empty dns, older in field order."""
        v1 = is_v1(cni_version)
        return drop_none(
            {
                "cniVersion": cni_version,
                "interfaces": [item.to_document(v1=v1) for item in self.interfaces] or None,
                "ips": [item.to_document(v1=v1) for item in self.ips] or None,
                "routes": [route.to_document(v1=v1) for route in self.routes] or None,
                "dns": self.dns.to_document(v1=v1) if self.dns or not v1 else None,
                "ntp": [str(server) for server in self.ntp] or None,
            },
            sort_keys=v1,
        )

    @property
    def has_address_types(self) -> bool:
        """Whether addresses and routes are of the types that they should be: an author may have written texts."""
        cidrs = [ip.address for ip in self.ips] + [route.dst for route in self.routes]
        gateways = [ip.gateway for ip in self.ips] + [route.gw for route in self.routes]
        return all(isinstance(cidr, Cidr) for cidr in cidrs) and all(isinstance(gw, Address | None) for gw in gateways)

    def without_declared_versions(self) -> Self:
        """The same with every address's family told by the address, as 1.x has it."""
        if all(ip.declared_version is None for ip in self.ips):
            return self
        return replace(self, ips=tuple(replace(ip, declared_version=None) for ip in self.ips))


def _addresses(value: Any) -> tuple[Address, ...]:
    return tuple(map(parse_ip, value)) if isinstance(value, list) else ()


def is_v1(cni_version: str) -> bool:
    """Whether the version is of the 1.x family."""
    return cni_version.startswith("1.")


def drop_none(document: Document, *, sort_keys: bool = False) -> Document:
    """The members that have a value, if wanted in the order of their names."""
    keys = sorted(document) if sort_keys else document
    return {key: value for key in keys if (value := document[key]) is not None}
