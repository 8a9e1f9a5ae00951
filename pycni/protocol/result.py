"""What ADD answers: interfaces, addresses, routes and DNS, in the shape of specification 1.x (SPEC section 5).

Everything inside pycni works with `Result`. Older shapes exist at the edge alone: `Result.parse` and
`Result.to_document` read and write 0.3.0 to 1.1.0, `pycni.protocol.legacy` knows 0.1.0 and 0.2.0, and
`pycni.protocol.conversion` chooses between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol.address import Address, Cidr, parse_ip
from pycni.protocol.fields import Fields

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
    def parse(cls, fields: Fields, *, modern: bool) -> Self:
        """Read the members of one interface; mtu, socketPath and pciID exist in 1.x alone."""
        basic = cls(name=fields.text("name"), mac=fields.text("mac"), sandbox=fields.text("sandbox"))
        if not modern:
            return basic
        return replace(
            basic,
            mtu=fields.integer("mtu") or 0,
            socket_path=fields.text("socketPath"),
            pci_id=fields.text("pciID"),
        )

    def to_document(self, *, modern: bool) -> Document:
        """As JSON; mtu, socketPath and pciID exist in 1.x alone."""
        document: Document = {"name": self.name, "mac": self.mac or None, "sandbox": self.sandbox or None}
        if modern:
            document |= {"mtu": self.mtu or None, "socketPath": self.socket_path or None, "pciID": self.pci_id or None}
        return without_none(document, in_order=modern)


@dataclass(frozen=True, slots=True)
class IpConfig:
    """An address with its prefix length, its gateway, and the index of its interface in the result."""

    address: Cidr
    gateway: Address | None = None
    interface: int | None = None
    slot: str | None = None  # what 0.3.0 to 0.4.0 wrote as version; None: as the address says

    @classmethod
    def parse(cls, fields: Fields, *, modern: bool) -> Self:
        """Read one entry of ips."""
        return cls(
            address=fields.cidr("address"),
            gateway=fields.address("gateway"),
            interface=fields.integer("interface"),
            slot=None if modern else fields.text("version"),
        )

    @property
    def version(self) -> str:
        """Its family as 0.3.0 to 0.4.0 write it: "4" or "6" (or what an old plugin wrote there)."""
        return str(self.address.version) if self.slot is None else self.slot

    def to_document(self, *, modern: bool) -> Document:
        """As JSON; `version` exists before 1.0.0 alone."""
        return without_none(
            {
                "version": None if modern else self.version,
                "interface": self.interface,
                "address": str(self.address),
                "gateway": None if self.gateway is None else str(self.gateway),
            },
            in_order=modern,
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
    def parse(cls, fields: Fields) -> Self:
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
    def parse_list(cls, fields: Fields) -> tuple[Self, ...]:
        """Read the member `routes`."""
        return tuple(cls.parse(item) for item in fields.objects("routes", _ROUTE))

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read one route that stands in a configuration. Raises ValueError."""
        return cls.parse(Fields(document, _ROUTE, "a route"))

    def to_document(self, *, modern: bool = False) -> Document:
        """As JSON."""
        return without_none(
            {
                "dst": str(self.dst),
                "gw": None if self.gw is None else str(self.gw),
                "mtu": self.mtu or None,
                "advmss": self.advmss or None,
                "priority": self.priority or None,
                "table": self.table,
                "scope": self.scope,
            },
            in_order=modern,
        )


@dataclass(frozen=True, slots=True)
class Dns:
    """Resolver settings; false when all four are empty."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, parent: Fields) -> Self:
        """Read the member `dns`."""
        fields = parent.object("dns", _DNS)
        return cls() if fields is None else cls._read(fields)

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read the dns of a configuration. Raises ValueError."""
        return cls._read(Fields(document, _DNS, "dns"))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            nameservers=fields.texts("nameservers"),
            domain=fields.text("domain"),
            search=fields.texts("search"),
            options=fields.texts("options"),
        )

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)

    def to_document(self, *, modern: bool = False) -> Document:
        """As JSON."""
        return without_none(
            {
                "nameservers": list(self.nameservers) or None,
                "domain": self.domain or None,
                "search": list(self.search) or None,
                "options": list(self.options) or None,
            },
            in_order=modern,
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
        modern = is_modern(cni_version)
        fields = Fields(document, _RESULT)
        return cls(
            interfaces=tuple(Interface.parse(item, modern=modern) for item in fields.objects("interfaces", _INTERFACE)),
            ips=tuple(IpConfig.parse(item, modern=modern) for item in fields.objects("ips", _IP)),
            routes=Route.parse_list(fields),
            dns=Dns.parse(fields),
            ntp=fields.extension("ntp", _addresses) or (),
        )

    def to_document(self, cni_version: str) -> Document:
        """As JSON of version 0.3.0 or newer: 1.x with sorted keys and without an empty dns, older in field order."""
        modern = is_modern(cni_version)
        return without_none(
            {
                "cniVersion": cni_version,
                "interfaces": [item.to_document(modern=modern) for item in self.interfaces] or None,
                "ips": [item.to_document(modern=modern) for item in self.ips] or None,
                "routes": [route.to_document(modern=modern) for route in self.routes] or None,
                "dns": self.dns.to_document(modern=modern) if self.dns or not modern else None,
                "ntp": [str(server) for server in self.ntp] or None,
            },
            in_order=modern,
        )

    @property
    def is_in_shape(self) -> bool:
        """Whether addresses and routes are of the types that they should be: an author may have written texts."""
        cidrs = [ip.address for ip in self.ips] + [route.dst for route in self.routes]
        gateways = [ip.gateway for ip in self.ips] + [route.gw for route in self.routes]
        return all(isinstance(cidr, Cidr) for cidr in cidrs) and all(isinstance(gw, Address | None) for gw in gateways)

    def forgetting_slots(self) -> Self:
        """The same with every address's family told by the address, as 1.x has it."""
        if all(ip.slot is None for ip in self.ips):
            return self
        return replace(self, ips=tuple(replace(ip, slot=None) for ip in self.ips))


def _addresses(value: Any) -> tuple[Address, ...]:
    return tuple(map(parse_ip, value)) if isinstance(value, list) else ()


def is_modern(cni_version: str) -> bool:
    """Whether the version is of the 1.x family."""
    return cni_version.startswith("1.")


def without_none(document: Document, *, in_order: bool = False) -> Document:
    """The members that have a value, if wanted in the order of their names."""
    keys = sorted(document) if in_order else document
    return {key: value for key in keys if (value := document[key]) is not None}
