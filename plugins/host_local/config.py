"""The configuration of host-local: range sets and requested addresses."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

from pycni.sdk import (
    Address,
    CniError,
    ConfigError,
    Ipam,
    Model,
    NetConf,
    RouteField,
    field_validator,
    parse_cidr,
    parse_ip,
    version,
)

from .ranges import Range, RangeSet, check_sets, has_two_of_a_family


class RangeConfig(Model):
    """A range of the configuration. Empty members have defaults."""

    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""

    def parse(self) -> Range:
        """Return the range. Raise ValueError."""
        return _parse_range(self.subnet, self.range_start, self.range_end, self.gateway)


class HostLocalIpam(Ipam):
    """The `ipam` object of the configuration."""

    ranges: tuple[tuple[RangeConfig, ...], ...] = ()
    subnet: str = ""  # this and the next three are a range of their own, before `ranges`
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""
    routes: tuple[RouteField, ...] = ()
    data_dir: str = ""
    resolv_conf: str = ""


class HostLocalCniArgs(Model):
    """The `args.cni` object: requested addresses."""

    ips: tuple[str, ...] = ()


class HostLocalArgs(Model):
    """The `args` object of the configuration."""

    cni: HostLocalCniArgs = HostLocalCniArgs()


class HostLocalRuntimeConfig(Model):
    """The `runtimeConfig` object: capabilities `ips` and `ipRanges`."""

    ips: tuple[str, ...] = ()
    ip_ranges: tuple[tuple[RangeConfig, ...], ...] = ()

    @field_validator("ip_ranges", mode="before")
    @classmethod
    def _accept_flat_list(cls, value: Any) -> Any:
        """Accept a flat list, as containerd sends it. Each range becomes a set of its own."""
        if not isinstance(value, list):
            return value
        sets = ([item] if isinstance(item, dict) else item for item in value)
        return tuple(tuple(item) if isinstance(item, list) else item for item in sets)


class HostLocalConfig(NetConf):
    """Configuration of host-local. README.md describes the options.

    DEL and GC need no ranges. Ranges are parsed on access, so that an invalid one does not make DEL and GC fail
    (docs/reference/plugins.md#lenient-del).
    """

    ipam: HostLocalIpam = HostLocalIpam()
    args: HostLocalArgs = HostLocalArgs()
    runtime_config: HostLocalRuntimeConfig = HostLocalRuntimeConfig()

    @property
    def has_ipam(self) -> bool:
        """Return whether the configuration has an `ipam` object, which may be empty."""
        return "ipam" in self.model_fields_set

    @property
    def data_dir(self) -> str:
        """Return the directory that contains one store per network."""
        return self.ipam.data_dir or "/var/lib/cni/networks"

    @cached_property
    def sets(self) -> tuple[RangeSet, ...]:
        """Return the range sets, in the order of the addresses in the result. Raise ConfigError."""
        if not self.has_ipam:
            raise ConfigError("IPAM config missing 'ipam' key", details="add an ipam object with a subnet or ranges")
        ipam = self.ipam
        single = RangeConfig(
            subnet=ipam.subnet, range_start=ipam.range_start, range_end=ipam.range_end, gateway=ipam.gateway
        )
        configured = (*self.runtime_config.ip_ranges, *([(single,)] if ipam.subnet else []), *ipam.ranges)
        sets = tuple(_parse_set(i, ranges) for i, ranges in enumerate(configured))
        try:
            check_sets(sets)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if has_two_of_a_family(sets) and not version.at_least(self.cni_version, "0.3.0"):
            raise ConfigError(
                f"CNI version {self.cni_version or version.DEFAULT} does not support more than 1 address per family",
                details=f"{len(sets)} range sets are configured: set cniVersion to 0.3.0 or newer",
            )
        return sets

    def problems(self) -> Iterator[str]:
        """Yield an error for each invalid range, or if there is none, for all of them together."""
        ipam = self.ipam
        named = {f"ipam.ranges[{i}][{j}]": one for i, ranges in enumerate(ipam.ranges) for j, one in enumerate(ranges)}
        if ipam.subnet:
            named["ipam"] = RangeConfig.model_construct(
                **{name: getattr(ipam, name) for name in RangeConfig.model_fields}
            )
        found = [error for path, range_ in named.items() for error in _range_errors(path, range_)]
        yield from found
        if not found:
            try:
                _ = self.sets
            except CniError as error:
                yield f"ipam: {error}"

    def requested(self, cni_args: dict[str, str]) -> list[Address]:
        """Return the addresses from runtimeConfig, args.cni and CNI_ARGS, in this order. Raise CniError."""
        return [
            *_parse_requests("runtimeConfig.ips", self.runtime_config.ips),
            *_parse_requests("args.cni.ips", self.args.cni.ips),
            *_parse_cni_arg(cni_args.get("IP", "")),
        ]


# Parsing takes a fifth of an ADD, and a server sees the same networks repeatedly.
_parse_range = lru_cache(maxsize=256)(Range.parse)


def _parse_set(i: int, ranges: Sequence[RangeConfig]) -> RangeSet:
    try:
        return RangeSet(tuple(range_.parse() for range_ in ranges))
    except ValueError as error:
        raise ConfigError(f"invalid range set {i}: {error}") from None


def _range_errors(path: str, range_: RangeConfig) -> Iterator[str]:
    try:
        Range.parse(range_.subnet)
    except ValueError as error:
        yield f"{path}.subnet: {error}"
        return
    try:
        range_.parse()
    except ValueError as error:
        yield f"{path}: {error}"


def _parse_request(text: str) -> Address:
    """Return the address. A prefix length is ignored."""
    return parse_cidr(text).ip if "/" in text else parse_ip(text)


def _parse_requests(source: str, texts: Iterable[str]) -> list[Address]:
    try:
        return [_parse_request(text) for text in texts if text]
    except ValueError as error:
        raise ConfigError(f"failed to load netconf: {source}: {error}") from None


def _parse_cni_arg(text: str) -> list[Address]:
    try:
        return [_parse_request(text)] if text else []
    except ValueError:
        raise CniError(
            f'ARGS: error parsing value of pair "IP={text}": invalid IP address {text}',
            details="IP in CNI_ARGS is one address; use args.cni.ips or the capability ips for several",
        ) from None
