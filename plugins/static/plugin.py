"""static: return the addresses given in the configuration or by the runtime.

The plugin keeps no state and does not test whether an address is in use.
"""

from collections.abc import Iterator
from dataclasses import replace

from pycni.sdk import (
    Address,
    Attachment,
    CniError,
    ConfigError,
    Dns,
    DnsField,
    Ipam,
    IpConfig,
    Model,
    NetConf,
    Network,
    Plugin,
    Result,
    RouteField,
    parse_cidr,
    parse_ip,
    version,
)


class AddressConfig(Model):
    """An entry of `addresses`: an address with its prefix length, and an optional gateway."""

    address: str = ""
    gateway: str = ""


class StaticIpam(Ipam):
    """The `ipam` object of the configuration."""

    addresses: tuple[AddressConfig, ...] = ()
    routes: tuple[RouteField, ...] = ()
    dns: DnsField = Dns()


class RequestedIps(Model):
    """Addresses requested by the runtime, in `runtimeConfig` or `args.cni`."""

    ips: tuple[str, ...] = ()


class StaticArgs(Model):
    """The `args` object of the configuration."""

    cni: RequestedIps = RequestedIps()


class StaticConfig(NetConf):
    """Configuration of static. README.md describes the options."""

    ipam: StaticIpam = StaticIpam()
    args: StaticArgs = StaticArgs()
    runtime_config: RequestedIps = RequestedIps()

    @property
    def has_ipam(self) -> bool:
        """Return whether the configuration has an `ipam` object, which may be empty."""
        return "ipam" in self.model_fields_set

    def addresses(self, cni_args: dict[str, str]) -> tuple[IpConfig, ...]:
        """Return the addresses of runtimeConfig, else of args.cni, else those of the configuration and CNI_ARGS.

        A GATEWAY in CNI_ARGS becomes the gateway of every address in whose subnet it is. Raise CniError if an address
        cannot be parsed, or if there are more than the version supports.
        """
        if not self.has_ipam:
            raise ConfigError("IPAM config missing 'ipam' key", details="add an ipam object with addresses")
        if requested := self.runtime_config.ips or self.args.cni.ips:
            addresses = [_parse_requested(text) for text in requested]
        else:
            addresses = [*self._configured, *map(_parse_cni_arg, _items(cni_args.get("IP", "")))]
        for gateway in map(_parse_gateway, _items(cni_args.get("GATEWAY", ""))):
            addresses = [replace(ip, gateway=gateway) if _in_subnet_of(ip, gateway) else ip for ip in addresses]
        families = [ip.address.version for ip in addresses]
        if len(families) != len(set(families)) and not version.at_least(self.cni_version, "0.3.0"):
            raise ConfigError(
                f"CNI version {self.cni_version or version.DEFAULT} does not support more than 1 address per family",
                details=f"{len(families)} addresses are configured: set cniVersion to 0.3.0 or newer",
            )
        return tuple(addresses)

    def problems(self) -> Iterator[str]:
        """Yield an error for each invalid address, or if there is none, for all of them together."""
        errors = enumerate(map(_address_error, self.ipam.addresses))
        found = [f"ipam.addresses[{i}]: {error}" for i, error in errors if error]
        yield from found
        if not found:
            try:
                self.addresses({})
            except CniError as error:
                yield f"ipam: {error}"

    @property
    def _configured(self) -> list[IpConfig]:
        return [_parse_configured(i, entry) for i, entry in enumerate(self.ipam.addresses)]


class Static(Plugin[StaticConfig]):
    """The static plugin. It changes nothing."""

    config = StaticConfig
    cni_args = ("IP", "GATEWAY")

    def add(self, cni: Attachment[StaticConfig]) -> Result:
        """Return the addresses, routes and DNS settings."""
        ipam = cni.config.ipam
        return Result(ips=cni.config.addresses(cni.args), routes=ipam.routes, dns=ipam.dns)

    def check(self, cni: Attachment[StaticConfig]) -> None:
        """Raise CniError unless prevResult has every address, with its gateway if one is configured."""
        present = ", ".join(str(ip.address) for ip in cni.required_prev_result.ips) or "no addresses"
        addresses = cni.config.addresses(cni.args)
        gateways = {ip.address: ip.gateway for ip in cni.prev_ips}
        for ip in addresses:
            if ip.address not in gateways:
                problem = f"prevResult does not contain {ip.address}; it contains {present}"
            elif ip.gateway not in (None, gateways[ip.address]):
                problem = f"the gateway in prevResult is {gateways[ip.address] or 'missing'}, expected {ip.gateway}"
            else:
                continue
            raise CniError(f"static: Failed to match addr {ip.address.ip} on interface {cni.ifname}", details=problem)

    def delete(self, cni: Attachment[StaticConfig]) -> None:
        """Do nothing: ADD keeps no state."""

    def status(self, cni: Network[StaticConfig]) -> None:
        """Raise CniError if an address cannot be parsed."""
        if cni.config.has_ipam:
            cni.config.addresses({})

    def gc(self, cni: Network[StaticConfig]) -> None:
        """Do nothing: ADD keeps no state."""


def _address_error(entry: AddressConfig) -> str:
    try:
        parse_cidr(entry.address)
        if entry.gateway:
            parse_ip(entry.gateway)
    except ValueError as error:
        return str(error)
    return ""


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text else []


def _in_subnet_of(ip: IpConfig, gateway: Address) -> bool:
    return gateway.version == ip.address.version and gateway in ip.address.network


def _parse_configured(i: int, entry: AddressConfig) -> IpConfig:
    try:
        address = parse_cidr(entry.address)
    except ValueError:
        raise ConfigError(
            f"the 'address' field is expected to be in CIDR notation, got: '{entry.address}'",
            details=f"set ipam.addresses[{i}].address to an address with a prefix length, such as 10.1.0.5/24",
        ) from None
    try:
        return IpConfig(address, parse_ip(entry.gateway) if entry.gateway else None)
    except ValueError as error:
        raise ConfigError(f"failed to load netconf: ipam.addresses[{i}].gateway: {error}") from None


def _parse_requested(text: str) -> IpConfig:
    try:
        return IpConfig(parse_cidr(text))
    except ValueError:
        raise ConfigError(
            f"an entry in the 'ips' field is NOT in CIDR notation, got: '{text}'",
            details="entries of runtimeConfig.ips and args.cni.ips need a prefix length, such as 10.1.0.5/24",
        ) from None


def _parse_cni_arg(text: str) -> IpConfig:
    try:
        return IpConfig(parse_cidr(text))
    except ValueError:
        raise CniError(
            f"the 'ip' field is expected to be in CIDR notation, got: '{text}'",
            details="IP in CNI_ARGS is a comma-separated list of addresses with prefix lengths: 10.1.0.5/24,fd00::5/64",
        ) from None


def _parse_gateway(text: str) -> Address:
    try:
        return parse_ip(text)
    except ValueError:
        raise CniError(
            f"invalid gateway address: {text}",
            details="GATEWAY in CNI_ARGS is a comma-separated list of addresses: 10.1.0.1,fd00::1",
        ) from None
