"""static: the addresses that the configuration, or the call, names.

Nothing is remembered, and nobody is asked whether an address is free.
"""

from collections.abc import Iterator
from dataclasses import replace

from pycni.protocol import version
from pycni.protocol.address import parse_cidr, parse_ip
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
)


class AddressConfig(Model):
    """An address with its prefix length, and its gateway if it has one."""

    address: str = ""
    gateway: str = ""


class StaticIpam(Ipam):
    """The section `ipam`."""

    addresses: tuple[AddressConfig, ...] = ()
    routes: tuple[RouteField, ...] = ()
    dns: DnsField = Dns()


class Ips(Model):
    """Where addresses may be asked for: runtimeConfig and args.cni."""

    ips: tuple[str, ...] = ()


class Args(Model):
    """Metadata of the configuration."""

    cni: Ips = Ips()


class StaticConfig(NetConf):
    """The options of static; README.md explains them."""

    ipam: StaticIpam = StaticIpam()
    args: Args = Args()
    runtime_config: Ips = Ips()

    @property
    def has_ipam(self) -> bool:
        """Whether there is a section `ipam`, be it empty."""
        return "ipam" in self.model_fields_set

    def addresses(self, cni_args: dict[str, str]) -> tuple[IpConfig, ...]:
        """The addresses with their gateways: those of runtimeConfig, else of args.cni, else all others together.

        A GATEWAY in CNI_ARGS becomes the gateway of every address in whose subnet it lies. Raises CniError.
        """
        if not self.has_ipam:
            raise ConfigError("IPAM config missing 'ipam' key", details="static needs ipam with addresses")
        if asked := self.runtime_config.ips or self.args.cni.ips:
            addresses = [_parse_asked(text) for text in asked]
        else:
            addresses = [*self._configured, *map(_parse_arg, _items(cni_args.get("IP", "")))]
        for gateway in map(_parse_gateway, _items(cni_args.get("GATEWAY", ""))):
            addresses = [replace(ip, gateway=gateway) if _reaches(ip, gateway) else ip for ip in addresses]
        families = [ip.address.version for ip in addresses]
        if len(families) != len(set(families)) and not version.at_least(self.cni_version, "0.3.0"):
            raise ConfigError(
                f"CNI version {self.cni_version or version.DEFAULT} does not support more than 1 address per family",
                details=f"there are {len(families)} addresses: set cniVersion to 0.3.0 or newer",
            )
        return tuple(addresses)

    def complaints(self) -> Iterator[str]:
        """Every address that is none; if they all are, what is wrong with them together."""
        found = [f"ipam.addresses[{i}]: {error}" for i, error in enumerate(map(_refusal, self.ipam.addresses)) if error]
        yield from found
        if not found:
            try:
                self.addresses({})
            except CniError as error:
                yield f"ipam: {error}"

    @property
    def _configured(self) -> list[IpConfig]:
        return [_parse_configured(i, written) for i, written in enumerate(self.ipam.addresses)]


class Static(Plugin[StaticConfig]):
    """The plugin; it changes nothing anywhere."""

    config = StaticConfig
    cni_args = ("IP", "GATEWAY")

    def add(self, cni: Attachment[StaticConfig]) -> Result:
        """Answer the addresses, routes and resolver settings."""
        ipam = cni.config.ipam
        return Result(ips=cni.config.addresses(cni.args), routes=ipam.routes, dns=ipam.dns)

    def check(self, cni: Attachment[StaticConfig]) -> None:
        """See that the interface got every address, with its gateway where one was named."""
        got = ", ".join(str(ip.address) for ip in cni.required_prev_result.ips) or "no addresses"
        addresses = cni.config.addresses(cni.args)
        gateways = {ip.address: ip.gateway for ip in cni.prev_ips}
        for ip in addresses:
            if ip.address not in gateways:
                problem = f"prevResult lacks {ip.address}: it has {got}"
            elif ip.gateway not in (None, gateways[ip.address]):
                problem = f"its gateway is {gateways[ip.address] or 'missing'} and should be {ip.gateway}"
            else:
                continue
            raise CniError(f"static: Failed to match addr {ip.address.ip} on interface {cni.ifname}", details=problem)

    def delete(self, cni: Attachment[StaticConfig]) -> None:
        """Nothing was kept, nothing is removed."""

    def status(self, cni: Network[StaticConfig]) -> None:
        """Ready if the addresses can be understood."""
        if cni.config.has_ipam:
            cni.config.addresses({})

    def gc(self, cni: Network[StaticConfig]) -> None:
        """Nothing was kept, nothing is stale."""


def _refusal(written: AddressConfig) -> str:
    try:
        parse_cidr(written.address)
        if written.gateway:
            parse_ip(written.gateway)
    except ValueError as error:
        return str(error)
    return ""


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text else []


def _reaches(ip: IpConfig, gateway: Address) -> bool:
    return gateway.version == ip.address.version and gateway in ip.address.network


def _parse_configured(i: int, written: AddressConfig) -> IpConfig:
    try:
        address = parse_cidr(written.address)
    except ValueError:
        raise ConfigError(
            f"the 'address' field is expected to be in CIDR notation, got: '{written.address}'",
            details=f"ipam.addresses[{i}].address is an address with a prefix length, such as 10.1.0.5/24",
        ) from None
    try:
        return IpConfig(address, parse_ip(written.gateway) if written.gateway else None)
    except ValueError as error:
        raise ConfigError(f"failed to load netconf: ipam.addresses[{i}].gateway: {error}") from None


def _parse_asked(text: str) -> IpConfig:
    try:
        return IpConfig(parse_cidr(text))
    except ValueError:
        raise ConfigError(
            f"an entry in the 'ips' field is NOT in CIDR notation, got: '{text}'",
            details="each entry of runtimeConfig.ips and args.cni.ips has a prefix length, such as 10.1.0.5/24",
        ) from None


def _parse_arg(text: str) -> IpConfig:
    try:
        return IpConfig(parse_cidr(text))
    except ValueError:
        raise CniError(
            f"the 'ip' field is expected to be in CIDR notation, got: '{text}'",
            details="IP in CNI_ARGS is a list of addresses with prefix lengths: 10.1.0.5/24,fd00::5/64",
        ) from None


def _parse_gateway(text: str) -> Address:
    try:
        return parse_ip(text)
    except ValueError:
        raise CniError(
            f"invalid gateway address: {text}", details="GATEWAY in CNI_ARGS is a list of addresses: 10.1.0.1,fd00::1"
        ) from None
