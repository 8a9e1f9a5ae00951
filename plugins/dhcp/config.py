"""The configuration of dhcp, and the DHCP options that it requests and provides."""

from collections.abc import Callable, Iterator, Mapping

from pycni.sdk import ConfigError, Field, Ipam, Model, NetConf

from . import options
from .options import Option

SOCKET = "/run/cni/dhcp.sock"
# Requested unless skipDefault is set. The Go plugin requests the first two.
_DEFAULT_REQUEST = (
    *(Option.ROUTERS, Option.SUBNET_MASK),
    *(Option.DOMAIN_NAME_SERVERS, Option.DOMAIN_NAME, Option.DOMAIN_SEARCH, Option.NTP_SERVERS),
)
# Requested, as by the Go plugin, if nothing else is: the list must not be empty (RFC 2132 section 9.8).
_MINIMAL_REQUEST = (Option.SUBNET_MASK, Option.ROUTERS, Option.DOMAIN_NAME, Option.DOMAIN_NAME_SERVERS)
_OPTION_MAX = 255  # bytes


class RequestEntry(Model):
    """An entry of `request`: an option to request from the server."""

    option: str = ""
    skip_default: bool = False


class ProvideEntry(Model):
    """An entry of `provide`: an option to send, whose value is `value` or that of a key of CNI_ARGS."""

    option: str = ""
    value: str = ""
    from_arg: str = ""


class DhcpIpam(Ipam):
    """The `ipam` object of the configuration."""

    daemon_socket_path: str = ""
    request: tuple[RequestEntry, ...] = ()
    provide: tuple[ProvideEntry, ...] = ()
    priority: int = Field(0, ge=0, le=0xFFFFFFFF)
    decline_conflicts: bool = False  # off by default: with proxy ARP even for probes, every address would be declined


class DhcpConfig(NetConf):
    """Configuration of dhcp. README.md describes the options."""

    ipam: DhcpIpam = DhcpIpam()

    @property
    def socket(self) -> str:
        """Return the path of the lease daemon's socket."""
        return self.ipam.daemon_socket_path or SOCKET

    @property
    def requested_options(self) -> tuple[int, ...]:
        """Return the codes for the parameter request list. Raise ConfigError."""
        listed = [
            _code(f"ipam.request[{i}]", entry.option, options.code_of)
            for i, entry in enumerate(self.ipam.request)
            if entry.option
        ]
        default = () if any(entry.skip_default for entry in self.ipam.request) else _DEFAULT_REQUEST
        return tuple(int(code) for code in dict.fromkeys((*listed, *default))) or tuple(map(int, _MINIMAL_REQUEST))

    def provided_options(self, cni_args: Mapping[str, str]) -> dict[int, bytes]:
        """Return the encoded options to send. Raise ConfigError."""
        found: dict[int, bytes] = {}
        for i, entry in enumerate(self.ipam.provide):
            path = f"ipam.provide[{i}]"
            code = _code(path, entry.option, options.providable_code_of)
            value = cni_args.get(entry.from_arg, entry.value) if entry.from_arg else entry.value
            if not value:
                continue
            try:
                data = options.encoded(code, value)
            except ValueError as error:
                raise ConfigError(f"{path}: option {entry.option}: {error}") from None
            if len(data) > _OPTION_MAX:
                raise ConfigError(
                    f"{path}: the value of option {entry.option} has {len(data)} bytes",
                    details=f"a DHCP option can have {_OPTION_MAX}",
                )
            found[code] = data
        return found

    def problems(self) -> Iterator[str]:
        """Yield an error for each invalid option."""
        for i, requested in enumerate(self.ipam.request):
            if requested.option:
                yield from _error(f"ipam.request[{i}].option", requested.option, options.code_of)
        for i, provided in enumerate(self.ipam.provide):
            yield from _error(f"ipam.provide[{i}].option", provided.option, options.providable_code_of)
            if len(provided.value.encode()) > _OPTION_MAX:
                yield f"ipam.provide[{i}].value: a DHCP option can have at most {_OPTION_MAX} bytes"


def _code(path: str, option: str, code_of: Callable[[str], int]) -> int:
    try:
        return code_of(option)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _error(path: str, option: str, code_of: Callable[[str], int]) -> Iterator[str]:
    try:
        code_of(option)
    except ValueError as error:
        yield f"{path}: {error}"
