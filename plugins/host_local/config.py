"""The configuration of host-local, and the range sets and wishes that it stands for."""

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
    """A range as it is written; empty members have defaults."""

    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""

    def parse(self) -> Range:
        """The range. Raises ValueError."""
        return _range(self.subnet, self.range_start, self.range_end, self.gateway)


class HostLocalIpam(Ipam):
    """The section `ipam`."""

    ranges: tuple[tuple[RangeConfig, ...], ...] = ()
    subnet: str = ""  # this and the next three: the one range of a configuration without `ranges`
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""
    routes: tuple[RouteField, ...] = ()
    data_dir: str = ""
    resolv_conf: str = ""


class CniMetadata(Model):
    """What args.cni may ask for."""

    ips: tuple[str, ...] = ()


class Args(Model):
    """Metadata of the configuration."""

    cni: CniMetadata = CniMetadata()


class RuntimeConfig(Model):
    """The capabilities ips and ipRanges."""

    ips: tuple[str, ...] = ()
    ip_ranges: tuple[tuple[RangeConfig, ...], ...] = ()

    @field_validator("ip_ranges", mode="before")
    @classmethod
    def _ranges_may_stand_alone(cls, value: Any) -> Any:
        """Containerd sends a flat list: each range is a set of its own."""
        if not isinstance(value, list):
            return value
        sets = ([item] if isinstance(item, dict) else item for item in value)
        return tuple(tuple(item) if isinstance(item, list) else item for item in sets)


class HostLocalConfig(NetConf):
    """The options of host-local; README.md explains them.

    DEL and GC need no ranges, so these are parsed when they are asked for and cannot stop anything else (R-05).
    """

    ipam: HostLocalIpam = HostLocalIpam()
    args: Args = Args()
    runtime_config: RuntimeConfig = RuntimeConfig()

    @property
    def has_ipam(self) -> bool:
        """Whether there is a section `ipam`, be it empty."""
        return "ipam" in self.model_fields_set

    @property
    def data_dir(self) -> str:
        """The directory with one store per network."""
        return self.ipam.data_dir or "/var/lib/cni/networks"

    @cached_property
    def sets(self) -> tuple[RangeSet, ...]:
        """The range sets in the order in which they give addresses. Raises ConfigError."""
        if not self.has_ipam:
            raise ConfigError("IPAM config missing 'ipam' key", details="host-local needs ipam with a subnet or ranges")
        ipam = self.ipam
        single = RangeConfig(
            subnet=ipam.subnet, range_start=ipam.range_start, range_end=ipam.range_end, gateway=ipam.gateway
        )
        written = (*self.runtime_config.ip_ranges, *([(single,)] if ipam.subnet else []), *ipam.ranges)
        sets = tuple(_parse_set(i, ranges) for i, ranges in enumerate(written))
        try:
            check_sets(sets)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if has_two_of_a_family(sets) and not version.at_least(self.cni_version, "0.3.0"):
            raise ConfigError(
                f"CNI version {self.cni_version or version.DEFAULT} does not support more than 1 address per family",
                details=f"{len(sets)} range sets give {len(sets)} addresses: set cniVersion to 0.3.0 or newer",
            )
        return sets

    def problems(self) -> Iterator[str]:
        """Every range that is none; if they all are, what is wrong with them together."""
        ipam = self.ipam
        named = {f"ipam.ranges[{i}][{j}]": one for i, ranges in enumerate(ipam.ranges) for j, one in enumerate(ranges)}
        if ipam.subnet:
            named["ipam"] = RangeConfig.model_construct(
                **{name: getattr(ipam, name) for name in RangeConfig.model_fields}
            )
        found = [complaint for path, written in named.items() for complaint in _complaints_about(path, written)]
        yield from found
        if not found:
            try:
                _ = self.sets
            except CniError as error:
                yield f"ipam: {error}"

    def requested(self, cni_args: dict[str, str]) -> list[Address]:
        """The addresses that were asked for, the most modern way of asking first. Raises CniError."""
        return [
            *_parse_requests("runtimeConfig.ips", self.runtime_config.ips),
            *_parse_requests("args.cni.ips", self.args.cni.ips),
            *_parse_cni_arg(cni_args.get("IP", "")),
        ]


# A fifth of an ADD, in a server that sees the same networks again and again.
_range = lru_cache(maxsize=256)(Range.parse)


def _parse_set(i: int, ranges: Sequence[RangeConfig]) -> RangeSet:
    try:
        return RangeSet(tuple(range_.parse() for range_ in ranges))
    except ValueError as error:
        raise ConfigError(f"invalid range set {i}: {error}") from None


def _complaints_about(path: str, written: RangeConfig) -> Iterator[str]:
    try:
        Range.parse(written.subnet)
    except ValueError as error:
        yield f"{path}.subnet: {error}"
        return
    try:
        written.parse()
    except ValueError as error:
        yield f"{path}: {error}"


def _parse_request(text: str) -> Address:
    """An address; a prefix length behind it is ignored."""
    return parse_cidr(text).ip if "/" in text else parse_ip(text)


def _parse_requests(where: str, texts: Iterable[str]) -> list[Address]:
    try:
        return [_parse_request(text) for text in texts if text]
    except ValueError as error:
        raise ConfigError(f"failed to load netconf: {where}: {error}") from None


def _parse_cni_arg(text: str) -> list[Address]:
    try:
        return [_parse_request(text)] if text else []
    except ValueError:
        raise CniError(
            f'ARGS: error parsing value of pair "IP={text}": invalid IP address {text}',
            details="IP in CNI_ARGS is one address; args.cni.ips and the capability ips take several",
        ) from None
