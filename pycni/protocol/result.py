"""The result of ADD: interfaces, addresses, routes and DNS (SPEC section 5, ADD Success).

Plugins and runtime work with `Result`, the format of 1.x. Documents are converted when they are read and written:
`Result.parse` and `Result.to_document` handle 0.3.0 to 1.1.0, `pycni.protocol.legacy` handles 0.1.0 and 0.2.0, and
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
    """A network interface in a result.

    Example:
        Interface("eth0", mac="02:00:00:00:00:01", mtu=1500, sandbox=cni.request.netns)
        Interface("br0", mac="02:00:00:00:00:02")  # on the host
    """

    name: str
    mac: str = ""  # as aa:bb:cc:dd:ee:ff; empty if unknown
    mtu: int = 0  # in bytes; 0 if not reported
    sandbox: str = ""  # path of the container's network namespace (CNI_NETNS); empty on the host
    socket_path: str = ""  # absolute path of a socket file, for vhost-user and the like
    pci_id: str = ""  # PCI address of the device, such as 0000:3b:00.1

    @classmethod
    def parse(cls, fields: JsonObject, *, v1: bool) -> Self:
        """Parse an entry of `interfaces`; mtu, socketPath and pciID exist only in 1.x (`v1`). Raises ValueError."""
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
        """Return a JSON object, with mtu, socketPath and pciID if `v1`, the format of 1.x."""
        document: Document = {"name": self.name, "mac": self.mac or None, "sandbox": self.sandbox or None}
        if v1:
            document |= {"mtu": self.mtu or None, "socketPath": self.socket_path or None, "pciID": self.pci_id or None}
        return drop_none(document, sort_keys=v1)


@dataclass(frozen=True, slots=True)
class IpConfig:
    """An IP address in a result.

    Example:
        IpConfig(ip_interface("10.1.0.2/24"), gateway=ip_address("10.1.0.1"), interface=0)
    """

    address: Cidr  # with its prefix length; host bits are kept
    gateway: Address | None = None
    interface: int | None = None  # index in Result.interfaces; None if the interface is not listed
    declared_version: str | None = None  # the `version` member of 0.3.0 to 0.4.0; None: derived from the address

    @classmethod
    def parse(cls, fields: JsonObject, *, v1: bool) -> Self:
        """Parse an entry of `ips`; `v1` is the format of 1.x. Raises ValueError."""
        return cls(
            address=fields.cidr("address"),
            gateway=fields.address("gateway"),
            interface=fields.integer("interface"),
            declared_version=None if v1 else fields.string("version"),
        )

    @property
    def version(self) -> str:
        """The IP version, "4" or "6", or whatever a plugin of version 0.3.0 to 0.4.0 declared."""
        return str(self.address.version) if self.declared_version is None else self.declared_version

    def to_document(self, *, v1: bool) -> Document:
        """Return a JSON object, without `version` if `v1`, the format of 1.x."""
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
    """A route in a result or a configuration.

    Without `gw`, the route uses the first gateway of its family among the addresses. If there is none either, it is a
    route to the link itself.

        Route(ip_interface("0.0.0.0/0"), gw=ip_address("10.1.0.1"))
    """

    dst: Cidr  # the destination, such as 10.0.0.0/8
    gw: Address | None = None  # the next hop
    mtu: int = 0  # path MTU in bytes; 0 if not set
    advmss: int = 0  # MSS to advertise to TCP peers, in bytes; 0 if not set
    priority: int = 0  # the metric; lower is preferred; 0 is the kernel's default
    table: int | None = None  # number of the routing table; None: main
    scope: int | None = None  # 0 global, 253 link, 254 host; None: the kernel's default

    @classmethod
    def parse(cls, fields: JsonObject) -> Self:
        """Parse an entry of `routes`. Raises ValueError."""
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
        """Parse the member `routes` of an object. Raises ValueError."""
        return tuple(cls.parse(item) for item in fields.objects("routes", _ROUTE))

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Parse a route in a configuration, a JSON object with the members of SPEC section 5. Raises ValueError."""
        return cls.parse(JsonObject(document, _ROUTE, "a route"))

    def to_document(self, *, v1: bool = False) -> Document:
        """Return a JSON object, with sorted keys if `v1`, the format of 1.x."""
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
    """Resolver settings, as in resolv.conf. A Dns object is false if all members are empty.

    Example:
        Dns(nameservers=("10.1.0.53",), search=("example.org",), options=("ndots:2",))
    """

    nameservers: tuple[str, ...] = ()  # addresses, in order of priority
    domain: str = ""  # the local domain
    search: tuple[str, ...] = ()  # domains for short names, in order of priority
    options: tuple[str, ...] = ()  # resolver options

    @classmethod
    def parse(cls, parent: JsonObject) -> Self:
        """Parse the member `dns` of an object. Raises ValueError."""
        fields = parent.object("dns", _DNS)
        return cls() if fields is None else cls._read(fields)

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Parse the `dns` object of a configuration. Raises ValueError."""
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
        """Return a JSON object, with sorted keys if `v1`, the format of 1.x."""
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
    """The result of ADD: interfaces, their addresses, routes and resolver settings.

    `Attachment.result` builds one from links and a lease. `ntp`, the addresses of time servers, is an extension of
    pycni: readers ignore members that they do not know.

        Result(
            interfaces=(Interface("eth0", sandbox=cni.request.netns),),
            ips=(IpConfig(ip_interface("10.1.0.2/24"), interface=0),),
        )
    """

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IpConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)
    ntp: tuple[Address, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any], cni_version: str) -> Self:
        """Parse a result document of version `cni_version`, 0.3.0 or newer. Raises ValueError."""
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
        """Return a JSON document of version `cni_version`, 0.3.0 or newer.

        As with the Go library, 1.x has sorted keys and no empty `dns`; older versions have the keys in the order of the
        specification and always a `dns`.
        """
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
        """Whether addresses, gateways and destinations have the declared types. A plugin may have used strings."""
        cidrs = [ip.address for ip in self.ips] + [route.dst for route in self.routes]
        gateways = [ip.gateway for ip in self.ips] + [route.gw for route in self.routes]
        return all(isinstance(cidr, Cidr) for cidr in cidrs) and all(isinstance(gw, Address | None) for gw in gateways)

    def without_declared_versions(self) -> Self:
        """Return the same result with the IP version of every address derived from the address, as in 1.x."""
        if all(ip.declared_version is None for ip in self.ips):
            return self
        return replace(self, ips=tuple(replace(ip, declared_version=None) for ip in self.ips))


def _addresses(value: Any) -> tuple[Address, ...]:
    return tuple(map(parse_ip, value)) if isinstance(value, list) else ()


def is_v1(cni_version: str) -> bool:
    """Return whether the version belongs to the 1.x family."""
    return cni_version.startswith("1.")


def drop_none(document: Document, *, sort_keys: bool = False) -> Document:
    """Return the members that are not None; with `sort_keys`, in the order of their keys."""
    keys = sorted(document) if sort_keys else document
    return {key: value for key in keys if (value := document[key]) is not None}
