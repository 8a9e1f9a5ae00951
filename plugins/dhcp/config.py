"""The configuration of dhcp, and the DHCP options that it stands for."""

from collections.abc import Callable, Iterator, Mapping

from pycni.sdk import ConfigError, Field, Ipam, Model, NetConf

from . import options
from .options import Option

SOCKET = "/run/cni/dhcp.sock"
# What is asked for unless skipDefault is said. The Go plugin asks for the first two.
_DEFAULT = (
    *(Option.ROUTERS, Option.SUBNET_MASK),
    *(Option.NAME_SERVERS, Option.DOMAIN_NAME, Option.DOMAIN_SEARCH, Option.NTP_SERVERS),
)
# A list must not be empty (RFC 2132 section 9.8): these, as with the Go plugin, stand in for one that is.
_AT_LEAST = (Option.SUBNET_MASK, Option.ROUTERS, Option.DOMAIN_NAME, Option.NAME_SERVERS)
_OPTION_MAX = 255


class Requested(Model):
    """An option that the server is asked for."""

    option: str = ""
    skip_default: bool = False


class Provided(Model):
    """An option that the server is told: a text, or what CNI_ARGS has under a key."""

    option: str = ""
    value: str = ""
    from_arg: str = ""


class DhcpIpam(Ipam):
    """The section `ipam`."""

    daemon_socket_path: str = ""
    request: tuple[Requested, ...] = ()
    provide: tuple[Provided, ...] = ()
    priority: int = Field(0, ge=0, le=0xFFFFFFFF)
    decline_conflicts: bool = False  # routers that answer even probes (proxy ARP) would have every address declined


class DhcpConfig(NetConf):
    """The options of dhcp; README.md explains them."""

    ipam: DhcpIpam = DhcpIpam()

    @property
    def socket(self) -> str:
        """Where the keeper listens."""
        return self.ipam.daemon_socket_path or SOCKET

    @property
    def requested(self) -> tuple[int, ...]:
        """The options that the server is asked for. Raises ConfigError."""
        listed = [
            _number(f"ipam.request[{i}]", item.option, options.number)
            for i, item in enumerate(self.ipam.request)
            if item.option
        ]
        default = () if any(item.skip_default for item in self.ipam.request) else _DEFAULT
        return tuple(int(code) for code in dict.fromkeys((*listed, *default))) or tuple(map(int, _AT_LEAST))

    def provided(self, cni_args: Mapping[str, str]) -> dict[int, bytes]:
        """The options that the server is told. Raises ConfigError."""
        found: dict[int, bytes] = {}
        for i, item in enumerate(self.ipam.provide):
            place = f"ipam.provide[{i}]"
            code = _number(place, item.option, options.providable)
            value = cni_args.get(item.from_arg, item.value) if item.from_arg else item.value
            if not value:
                continue
            try:
                data = options.encoded(code, value)
            except ValueError as error:
                raise ConfigError(f"{place}: option {item.option}: {error}") from None
            if len(data) > _OPTION_MAX:
                raise ConfigError(
                    f"{place}: the value of option {item.option} has {len(data)} bytes",
                    details=f"a DHCP option holds {_OPTION_MAX}",
                )
            found[code] = data
        return found

    def problems(self) -> Iterator[str]:
        """Every option that is none."""
        for i, requested in enumerate(self.ipam.request):
            if requested.option:
                yield from _complaint(f"ipam.request[{i}].option", requested.option, options.number)
        for i, provided in enumerate(self.ipam.provide):
            yield from _complaint(f"ipam.provide[{i}].option", provided.option, options.providable)
            if len(provided.value.encode()) > _OPTION_MAX:
                yield f"ipam.provide[{i}].value: a DHCP option holds {_OPTION_MAX} bytes"


def _number(place: str, option: str, of: Callable[[str], int]) -> int:
    try:
        return of(option)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None


def _complaint(place: str, option: str, of: Callable[[str], int]) -> Iterator[str]:
    try:
        of(option)
    except ValueError as error:
        yield f"{place}: {error}"
