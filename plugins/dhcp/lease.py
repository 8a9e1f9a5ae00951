"""What a DHCP server has granted: an address, for how long, and the options that came with it."""

import time
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pycni.sdk import ConfigDict, Dns, IpConfig, Model, Result, Route

from . import options
from .message import Message
from .options import Option

_DEFAULT_TIME = 3600  # seconds, where a server names none
_FOR_EVER = 0xFFFFFFFF
_RENEW, _REBIND = 0.5, 0.875  # parts of the time (RFC 2131 section 4.4.5)
_MTU_MIN = 68


def now() -> float:
    """Seconds since the machine was started, those in which it slept among them: no clock that is set can move it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease(Model):
    """A lease, frozen. Times are those of `now()`."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    address: IPv4Address
    server: IPv4Address
    server_mac: str  # of the server, or of the relay that speaks for it
    obtained: float  # when it was asked for (RFC 2131 section 4.4.1)
    options: dict[int, bytes]

    @classmethod
    def of(cls, ack: Message, server_mac: str, asked_at: float) -> "Lease":
        """The lease in a DHCPACK. Raises ValueError if it is none."""
        servers = options.addresses(ack.options.get(Option.SERVER, b""))
        if not servers:
            raise ValueError("DHCP option Server Identifier not found in DHCPACK")
        if len(ack.options.get(Option.SUBNET_MASK, b"")) != 4:
            raise ValueError("DHCP option Subnet Mask not found in DHCPACK")
        lease = cls(
            address=ack.yours, server=servers[0], server_mac=server_mac, obtained=asked_at, options=dict(ack.options)
        )
        if lease.cidr.network.prefixlen == 0 or not _is_usable(lease.address):
            raise ValueError(f"{lease.cidr} in DHCPACK is no address of a host")
        return lease

    def _option(self, code: Option) -> bytes:
        return self.options.get(code, b"")

    @property
    def duration(self) -> float:
        """How long it lasts; infinity for one without end."""
        seconds = options.seconds(self._option(Option.LEASE_TIME))
        return float("inf") if seconds == _FOR_EVER else seconds or _DEFAULT_TIME

    @property
    def renew_at(self) -> float:
        """T1: from then on its server is asked for more time."""
        return self.obtained + self._timers[0]

    @property
    def rebind_at(self) -> float:
        """T2: from then on any server is."""
        return self.obtained + self._timers[1]

    @property
    def expires_at(self) -> float:
        """From then on the address is somebody else's."""
        return self.obtained + self.duration

    @property
    def _timers(self) -> tuple[float, float]:
        duration = self.duration
        rebind = options.seconds(self._option(Option.REBINDING_TIME)) or duration * _REBIND
        if not rebind < duration:
            rebind = duration * _REBIND
        renew = options.seconds(self._option(Option.RENEWAL_TIME)) or duration * _RENEW
        return (renew if renew < rebind else rebind * _RENEW / _REBIND), rebind

    @property
    def cidr(self) -> IPv4Interface:
        """The address with its prefix length."""
        mask = IPv4Address(self._option(Option.SUBNET_MASK))
        return IPv4Interface((self.address, IPv4Network(f"0.0.0.0/{mask}").prefixlen))

    @property
    def gateway(self) -> IPv4Address | None:
        """The first router."""
        return next(iter(options.addresses(self._option(Option.ROUTERS))), None)

    def routes(self, priority: int) -> tuple[Route, ...]:
        """Its routes; where there are classless ones, all others do not count (RFC 3442)."""
        found = list(options.classless_routes(self._option(Option.CLASSLESS_ROUTES)))
        if not found:
            found = list(options.static_routes(self._option(Option.STATIC_ROUTES)))
            if self.gateway is not None:
                found.append(Route(IPv4Interface("0.0.0.0/0"), self.gateway))
        return tuple(Route(route.dst, route.gw, priority=priority, scope=route.scope) for route in dict.fromkeys(found))

    @property
    def dns(self) -> Dns:
        """Name servers, domain and search list."""
        return Dns(
            nameservers=tuple(map(str, options.addresses(self._option(Option.NAME_SERVERS)))),
            domain=options.domain(self._option(Option.DOMAIN_NAME)),
            search=tuple(options.names(self._option(Option.DOMAIN_SEARCH))),
        )

    @property
    def ntp(self) -> tuple[IPv4Address, ...]:
        """Time servers."""
        return tuple(options.addresses(self._option(Option.NTP_SERVERS)))

    @property
    def mtu(self) -> int | None:
        """The MTU that the server wants on the interface, if it wants one."""
        mtu = options.short(self._option(Option.MTU))
        return mtu if mtu is not None and mtu >= _MTU_MIN else None

    def result(self, priority: int) -> Result:
        """What ADD answers."""
        ips = (IpConfig(self.cidr, self.gateway),)
        return Result(ips=ips, routes=self.routes(priority), dns=self.dns, ntp=self.ntp)


def _is_usable(address: IPv4Address) -> bool:
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved)
