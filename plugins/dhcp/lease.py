"""DHCP leases: the granted address, its times T1 and T2 and expiry, and the options of the ACK."""

import time
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pycni.sdk import ConfigDict, Dns, IpConfig, Model, Result, Route

from . import options
from .message import Message
from .options import Option

_DEFAULT_DURATION = 3600  # seconds, if the server sends none
_INFINITE = 0xFFFFFFFF
_RENEW, _REBIND = 0.5, 0.875  # T1 and T2 as parts of the duration (RFC 2131 section 4.4.5)
_MTU_MIN = 68


def now() -> float:
    """Return the seconds since boot, including suspend. Setting the clock does not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class DhcpLease(Model):
    """A lease. Times are in seconds, as `now()` returns them."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    address: IPv4Address
    server: IPv4Address
    server_mac: str  # of the server or the relay agent
    obtained: float  # when the REQUEST was sent (RFC 2131 section 4.4.1)
    options: dict[int, bytes]

    @classmethod
    def of(cls, ack: Message, server_mac: str, requested_at: float) -> "DhcpLease":
        """Return the lease in a DHCPACK. Raise ValueError if it is not valid."""
        servers = options.addresses(ack.options.get(Option.SERVER_ID, b""))
        if not servers:
            raise ValueError("DHCP option Server Identifier not found in DHCPACK")
        if len(ack.options.get(Option.SUBNET_MASK, b"")) != 4:
            raise ValueError("DHCP option Subnet Mask not found in DHCPACK")
        lease = cls(
            address=ack.yiaddr,
            server=servers[0],
            server_mac=server_mac,
            obtained=requested_at,
            options=dict(ack.options),
        )
        if lease.cidr.network.prefixlen == 0 or not _is_usable(lease.address):
            raise ValueError(f"{lease.cidr} in DHCPACK is not a valid host address")
        return lease

    def _option(self, code: Option) -> bytes:
        return self.options.get(code, b"")

    @property
    def duration(self) -> float:
        """Return the duration in seconds, infinity for an infinite lease."""
        seconds = options.seconds(self._option(Option.LEASE_TIME))
        return float("inf") if seconds == _INFINITE else seconds or _DEFAULT_DURATION

    @property
    def renew_at(self) -> float:
        """Return T1, when the client begins to renew the lease with its server."""
        return self.obtained + self._timers[0]

    @property
    def rebind_at(self) -> float:
        """Return T2, when the client begins to rebind with any server."""
        return self.obtained + self._timers[1]

    @property
    def expires_at(self) -> float:
        """Return the time at which the lease expires."""
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
        """Return the address with its prefix length."""
        mask = IPv4Address(self._option(Option.SUBNET_MASK))
        return IPv4Interface((self.address, IPv4Network(f"0.0.0.0/{mask}").prefixlen))

    @property
    def gateway(self) -> IPv4Address | None:
        """Return the first router, or None."""
        return next(iter(options.addresses(self._option(Option.ROUTERS))), None)

    def routes(self, priority: int) -> tuple[Route, ...]:
        """Return the routes. Classless routes (option 121) replace static routes and routers (RFC 3442)."""
        found = list(options.classless_routes(self._option(Option.CLASSLESS_ROUTES)))
        if not found:
            found = list(options.static_routes(self._option(Option.STATIC_ROUTES)))
            if self.gateway is not None:
                found.append(Route(IPv4Interface("0.0.0.0/0"), self.gateway))
        return tuple(Route(route.dst, route.gw, priority=priority, scope=route.scope) for route in dict.fromkeys(found))

    @property
    def dns(self) -> Dns:
        """Return name servers, domain and search list."""
        return Dns(
            nameservers=tuple(map(str, options.addresses(self._option(Option.DOMAIN_NAME_SERVERS)))),
            domain=options.domain(self._option(Option.DOMAIN_NAME)),
            search=tuple(options.names(self._option(Option.DOMAIN_SEARCH))),
        )

    @property
    def ntp(self) -> tuple[IPv4Address, ...]:
        """Return the NTP servers."""
        return tuple(options.addresses(self._option(Option.NTP_SERVERS)))

    @property
    def mtu(self) -> int | None:
        """Return the MTU that the server sent, or None."""
        mtu = options.short(self._option(Option.MTU))
        return mtu if mtu is not None and mtu >= _MTU_MIN else None

    def result(self, priority: int) -> Result:
        """Return the result of ADD."""
        ips = (IpConfig(self.cidr, self.gateway),)
        return Result(ips=ips, routes=self.routes(priority), dns=self.dns, ntp=self.ntp)


def _is_usable(address: IPv4Address) -> bool:
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved)
