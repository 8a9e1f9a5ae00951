"""static: the addresses that the configuration, or the call, names.

Nothing is remembered, and nobody is asked whether an address is free.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

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
