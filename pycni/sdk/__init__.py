"""The public API for plugin authors. A plugin imports everything from here.

    from pycni.sdk import Attachment, NetConf, Plugin, Result

    class MtuConfig(NetConf):
        mtu: int

    class Mtu(Plugin[MtuConfig]):
        config = MtuConfig

        def add(self, cni: Attachment[MtuConfig]) -> Result:
            cni.container.link(cni.ifname).set(mtu=cni.config.mtu)
            return cni.required_prev_result

        def check(self, cni: Attachment[MtuConfig]) -> None:
            cni.container.link(cni.ifname).expect(mtu=cni.config.mtu)

        def delete(self, cni: Attachment[MtuConfig]) -> None:
            pass  # the kernel removes the MTU with the interface

Register the plugin in the pyproject.toml of its package, and `pycni install` creates its executable:

    [project.entry-points."pycni.plugins"]
    mtu = "acme_mtu:Mtu"

The plugin and its call
    Plugin              base class: add, check, delete, status, gc
    LinkPlugin          base class of plugins that create one link in the container
    MasterLinkPlugin    the same for links on top of another link, the master
    Attachment          the call, for add, check and delete
    Network             the call, for status and gc
    Delegate            another plugin that this one calls (SPEC section 4)
    Request             verb, CNI_* variables and stdin of the call
    Journal             changes of the call, for rollback
    CniError            an error that the caller receives
    ConfigError         an error in the configuration (code 7)
    Code                error codes of the specification
    version             the module for versions of the specification: ALL, NEWEST, DEFAULT, at_least

Configuration
    NetConf             base class of configurations; a pydantic model
    Model               base class of their parts
    MacConf, MasterConf configurations for LinkPlugin and MasterLinkPlugin
    Ipam, MacSource     the members `ipam`, and `runtimeConfig` or `args.cni` with a MAC
    Field, ConfigDict, ValidationError, field_validator, model_validator, AfterValidator, BeforeValidator,
    PlainValidator      from pydantic

Types of fields in a configuration
    Address             IP address, such as "10.1.0.1"
    Cidr                IP address with a prefix length, such as "10.1.0.2/24"; host bits are kept
    Ifname              name of an interface, 1 to 15 bytes
    OptionalIfname      the same, or ""
    Mac                 unicast MAC address in one of the usual notations, or ""; normalized to aa:bb:cc:dd:ee:ff
    MasqBackend         "nftables", "iptables" or "" (nftables)
    RouteField          a route as in SPEC section 5; becomes a Route
    DnsField            resolver settings as in SPEC section 5; become a Dns

Results and addresses
    Result, Interface, IpConfig, Route, Dns
                        the result of ADD and its parts
    Lease               addresses and routes from IPAM
    parse_ip, parse_cidr, to_cidr
                        IP addresses from text and parts

The network
    Namespace           a network namespace: links, addresses, routes, firewall
    Link                a network interface
    LinkChanges         keywords of Link.set and Link.ensure, a TypedDict
    LinkSettings        keywords of Link.expect, a TypedDict
    Owner               the attachment that created something, as an ownership label
    Stale               the ownership labels that GC may remove
    BridgeIsolation, Device, FirewallSettings, HostPorts, PortMapping, RateLimit, RouteChange, SavedLink,
    SourceRoute, Tap
                        arguments and results of the methods of Namespace and Link
    Datagram, DatagramSocket, arp_probe
                        packet sockets and ARP probes

State and waiting
    StateFile           a file that keeps state between calls
    unix_listener       a Unix socket of a process that outlives a call
    passed_listener     the same, passed by systemd
    peer_credentials    process and user at the other end of a Unix socket
    yield_turn          mark a section that waits, so that the server runs other calls meanwhile
    lock_file           lock an open file, or give up after some seconds

`help(pycni.sdk.NAME)` describes each of them.
"""

from typing import TYPE_CHECKING

# Type checkers read these imports. `X as X` marks X as part of the public API.
if TYPE_CHECKING:
    from pycni.kernel.firewall.port_mappings import HostPorts as HostPorts
    from pycni.kernel.firewall.port_mappings import PortMapping as PortMapping
    from pycni.kernel.firewall.settings import BridgeIsolation as BridgeIsolation
    from pycni.kernel.firewall.settings import FirewallSettings as FirewallSettings
    from pycni.kernel.journal import Journal as Journal
    from pycni.kernel.link.address_change import RouteChange as RouteChange
    from pycni.kernel.link.arp import arp_probe as arp_probe
    from pycni.kernel.link.datagrams import Datagram as Datagram
    from pycni.kernel.link.datagrams import DatagramSocket as DatagramSocket
    from pycni.kernel.link.devices import Device as Device
    from pycni.kernel.link.link import Link as Link
    from pycni.kernel.link.link_settings import LinkChanges as LinkChanges
    from pycni.kernel.link.link_settings import LinkSettings as LinkSettings
    from pycni.kernel.link.rate_limit import RateLimit as RateLimit
    from pycni.kernel.link.routes import SourceRoute as SourceRoute
    from pycni.kernel.link.saved_link import SavedLink as SavedLink
    from pycni.kernel.link.taps import Tap as Tap
    from pycni.kernel.namespace import Namespace as Namespace
    from pycni.kernel.owner import Owner as Owner
    from pycni.kernel.owner import Stale as Stale
    from pycni.kernel.scheduling import lock_file as lock_file
    from pycni.kernel.scheduling import yield_turn as yield_turn
    from pycni.protocol import version as version
    from pycni.protocol.address import parse_cidr as parse_cidr
    from pycni.protocol.address import parse_ip as parse_ip
    from pycni.protocol.address import to_cidr as to_cidr
    from pycni.protocol.errors import CniError as CniError
    from pycni.protocol.errors import Code as Code
    from pycni.protocol.errors import ConfigError as ConfigError
    from pycni.protocol.request import Request as Request
    from pycni.protocol.result import Dns as Dns
    from pycni.protocol.result import Interface as Interface
    from pycni.protocol.result import IpConfig as IpConfig
    from pycni.protocol.result import Result as Result
    from pycni.protocol.result import Route as Route
    from pycni.sdk.attachment import Attachment as Attachment
    from pycni.sdk.attachment import Network as Network
    from pycni.sdk.config import Address as Address
    from pycni.sdk.config import Cidr as Cidr
    from pycni.sdk.config import DnsField as DnsField
    from pycni.sdk.config import Ifname as Ifname
    from pycni.sdk.config import Ipam as Ipam
    from pycni.sdk.config import Mac as Mac
    from pycni.sdk.config import MacSource as MacSource
    from pycni.sdk.config import MasqBackend as MasqBackend
    from pycni.sdk.config import Model as Model
    from pycni.sdk.config import NetConf as NetConf
    from pycni.sdk.config import OptionalIfname as OptionalIfname
    from pycni.sdk.config import RouteField as RouteField
    from pycni.sdk.delegate import Delegate as Delegate
    from pycni.sdk.lease import Lease as Lease
    from pycni.sdk.link_plugin import LinkPlugin as LinkPlugin
    from pycni.sdk.link_plugin import MacConf as MacConf
    from pycni.sdk.link_plugin import MasterConf as MasterConf
    from pycni.sdk.link_plugin import MasterLinkPlugin as MasterLinkPlugin
    from pycni.sdk.models import AfterValidator as AfterValidator
    from pycni.sdk.models import BeforeValidator as BeforeValidator
    from pycni.sdk.models import ConfigDict as ConfigDict
    from pycni.sdk.models import Field as Field
    from pycni.sdk.models import PlainValidator as PlainValidator
    from pycni.sdk.models import ValidationError as ValidationError
    from pycni.sdk.models import field_validator as field_validator
    from pycni.sdk.models import model_validator as model_validator
    from pycni.sdk.plugin import Plugin as Plugin
    from pycni.sdk.state_file import StateFile as StateFile
    from pycni.sdk.unix_socket import passed_listener as passed_listener
    from pycni.sdk.unix_socket import peer_credentials as peer_credentials
    from pycni.sdk.unix_socket import unix_listener as unix_listener

# At run time a module is imported when one of its names is first used: IPAM plugins need no netlink, and a runtime that
# only starts executables needs no pydantic. A test compares this table with the imports above.
_MODULES = {
    "pycni.kernel.firewall.port_mappings": ["HostPorts", "PortMapping"],
    "pycni.kernel.firewall.settings": ["BridgeIsolation", "FirewallSettings"],
    "pycni.kernel.journal": ["Journal"],
    "pycni.kernel.link.arp": ["arp_probe"],
    "pycni.kernel.link.datagrams": ["Datagram", "DatagramSocket"],
    "pycni.kernel.link.devices": ["Device"],
    "pycni.kernel.link.link": ["Link"],
    "pycni.kernel.link.link_settings": ["LinkChanges", "LinkSettings"],
    "pycni.kernel.link.rate_limit": ["RateLimit"],
    "pycni.kernel.link.address_change": ["RouteChange"],
    "pycni.kernel.link.routes": ["SourceRoute"],
    "pycni.kernel.link.saved_link": ["SavedLink"],
    "pycni.kernel.link.taps": ["Tap"],
    "pycni.kernel.namespace": ["Namespace"],
    "pycni.kernel.owner": ["Owner", "Stale"],
    "pycni.kernel.scheduling": ["lock_file", "yield_turn"],
    "pycni.protocol": ["version"],
    "pycni.protocol.address": ["parse_cidr", "parse_ip", "to_cidr"],
    "pycni.protocol.errors": ["CniError", "Code", "ConfigError"],
    "pycni.protocol.request": ["Request"],
    "pycni.protocol.result": ["Dns", "Interface", "IpConfig", "Result", "Route"],
    "pycni.sdk.attachment": ["Attachment", "Network"],
    "pycni.sdk.config": [
        *("Address", "Cidr", "DnsField", "Ifname", "Ipam", "Mac", "MacSource", "MasqBackend", "Model", "NetConf"),
        *("OptionalIfname", "RouteField"),
    ],
    "pycni.sdk.delegate": ["Delegate"],
    "pycni.sdk.lease": ["Lease"],
    "pycni.sdk.link_plugin": ["LinkPlugin", "MacConf", "MasterConf", "MasterLinkPlugin"],
    "pycni.sdk.models": [
        *("AfterValidator", "BeforeValidator", "ConfigDict", "Field", "PlainValidator", "ValidationError"),
        *("field_validator", "model_validator"),
    ],
    "pycni.sdk.plugin": ["Plugin"],
    "pycni.sdk.state_file": ["StateFile"],
    "pycni.sdk.unix_socket": ["passed_listener", "peer_credentials", "unix_listener"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - a list


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(__import__(_MODULE_OF[name], fromlist=[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
