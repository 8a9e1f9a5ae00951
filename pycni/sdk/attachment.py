"""What a verb is given: the configuration, the two namespaces, IPAM, and what earlier plugins made."""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale, is_label
from pycni.protocol import cni_args, go_json
from pycni.protocol.address import Address
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError, Code, ConfigError
from pycni.protocol.request import Request
from pycni.protocol.result import Interface, IpConfig, Result
from pycni.sdk.config import NetConf
from pycni.sdk.delegate import Delegate
from pycni.sdk.ipam import Invoke, IpamDelegate
from pycni.sdk.lease import Lease

if TYPE_CHECKING:
    from pycni.kernel.link.link import Link
    from pycni.kernel.namespace import Namespace
    from pycni.sdk.address_usage import AddressUsage

C = TypeVar("C", bound=NetConf)

_VALID = "cni.dev/valid-attachments"
_NO_LEASE = Lease()


class Network(Generic[C]):
    """A network on this host: what STATUS and GC are about."""

    def __init__(self, config: C, request: Request, journal: Journal, invoke: Invoke) -> None:
        self.config = config
        self.request = request
        self.journal = journal
        self._invoke = invoke
        self.ipam = IpamDelegate(config.ipam.type, request, invoke, journal)
        self._opened: list[Namespace] = []

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.request.network

    @cached_property
    def host(self) -> "Namespace":
        """The namespace of the host, as the runtime sees it."""
        from pycni.kernel.namespace import Namespace  # loads pyroute2, which IPAM plugins never need

        host = Namespace.own(self.journal, self.request.host_fd)
        host.read_only = self.request.command == "CHECK"
        self._opened.append(host)
        return host

    def find_namespace(self, cookie: str, *paths: str) -> "Namespace | None":
        """The namespace that was remembered by its incarnation, if it is still at one of these paths."""
        from pycni.kernel.namespace import Namespace

        for path in paths:
            try:
                namespace = Namespace(path, self.journal)
            except CniError:
                continue
            self._opened.append(namespace)
            if namespace.cookie == cookie:
                return namespace
        return None

    def delegate(self, document: Mapping[str, Any]) -> Delegate:
        """The plugin that the configuration `document` names as its type; `invoke` decides how it is called."""
        return Delegate(document, self.request, self._invoke, self.journal)

    @cached_property
    def valid_attachments(self) -> list[Owner] | None:
        """The attachments still valid, as GC was told; None if the caller gave no list (P-144)."""
        if _VALID not in self.request.config:
            return None
        entries = self.request.config[_VALID] or []
        try:
            return [_owner(self.name, entry) for entry in entries]
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{_VALID}: {error}", details='it is a list of {"containerID": "...", "ifname": "..."}'
            ) from None

    @property
    def stale(self) -> Stale:
        """What GC may remove. Without a list of valid attachments: nothing."""
        if self.valid_attachments is None:
            raise ConfigError(f"{_VALID} is missing: without it nothing is known to be stale")
        return Stale(self.name, self.valid_attachments)

    def unused_addresses(self, ips: Iterable[Address]) -> list[Address]:
        """Of addresses in rules that do not tell whose they are, those that were the network's and are nobody's now."""
        return self._address_usage.unused_addresses(ips, self.stale)

    def is_unused_interface(self, interface: str) -> bool:
        """Whether no network of any runtime's has this interface of a container, `ID_IFNAME`, any more."""
        return self._address_usage.is_unused_interface(interface, self.stale)

    @cached_property
    def _address_usage(self) -> "AddressUsage":
        from pycni.sdk.address_usage import AddressUsage  # GC alone needs it

        return AddressUsage.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in self._opened:
            namespace.close()


class Attachment(Network[C]):
    """One interface of one container on a network: what ADD, CHECK and DEL are about."""

    def __init__(self, config: C, request: Request, journal: Journal, invoke: Invoke, args: dict[str, str]) -> None:
        super().__init__(config, request, journal, invoke)
        self.args = args  # values of the keys in CNI_ARGS that the plugin declares (Plugin.cni_args)

    @property
    def all_args(self) -> dict[str, str]:
        """All well-formed pairs of CNI_ARGS, for plugins whose configuration names the keys that they read."""
        return cni_args.parse_leniently(self.request.args)

    @property
    def container_id(self) -> str:
        """The id that the runtime gave the container."""
        return self.request.container_id

    @property
    def ifname(self) -> str:
        """The name of the interface in the container."""
        return self.request.ifname

    @cached_property
    def owner(self) -> Owner:
        """The label of what belongs to this attachment."""
        return Owner(self.name, self.container_id, self.ifname)

    @property
    def host_ifname(self) -> str:
        """The name of the host's end of a cable to the container: always the same for the same attachment."""
        return self.owner.host_ifname

    @cached_property
    def container(self) -> "Namespace":
        """The namespace of the container. Raises CniError, code 8, if there is none; for DEL it may be gone."""
        from pycni.kernel.namespace import Namespace, NoNamespace

        try:
            container = Namespace(self.request.netns, self.journal, self.request.netns_fd)
        except CniError:
            if self.request.command == "DEL":
                return NoNamespace()  # type: ignore[return-value] # it has what DEL needs
            raise
        container.read_only = self.request.command == "CHECK"
        self._opened.append(container)
        return container

    @property
    def netns_cookie(self) -> str:
        """What tells the container's namespace from all others, those included that will have its path later.

        Raises CniError, code 8, if there is none. It loads no netlink.
        """
        netns = NetnsHandle(self.request.netns, self.journal, self.request.netns_fd)
        try:
            return netns.cookie
        finally:
            netns.close()

    @cached_property
    def prev_result(self) -> Result | None:
        """What the earlier plugins of the chain made, or (CHECK, DEL) what the chain made; None if not given.

        Raises CniError, code 6, if it cannot be read; for DEL that counts as not given.
        """
        document = go_json.select_members(self.request.config, ("prevResult",)).get("prevResult")
        if document is None:
            return None
        try:
            return VersionedResult.parse_as(document, self.request.cni_version).result
        except ValueError as error:
            if self.request.command == "DEL":
                return None
            raise CniError(f"could not parse prevResult: {error}", code=Code.DECODING_FAILURE) from None

    @property
    def required_prev_result(self) -> Result:
        """The same, where there must be one. Raises ConfigError."""
        if self.prev_result is not None:
            return self.prev_result
        if self.request.command == "ADD":
            raise ConfigError(
                "Required prevResult missing: must be called as chained plugin",
                details=f"an earlier plugin of the list makes {self.ifname}; its result is the prevResult",
            )
        raise ConfigError("Required prevResult missing", details="it is the result of the ADD, from the runtime")

    @property
    def prev_ips(self) -> list[IpConfig]:
        """The addresses of this very interface in the previous result; empty if there is none."""
        result = self.prev_result or Result()
        return [ip for ip in result.ips if _is_on(ip, result, self.ifname)]

    def result(self, *links: "Link", lease: Lease = _NO_LEASE, on: "Link | None" = None) -> Result:
        """What was made: the links in this order, and the lease's addresses on the link `on`.

        The configuration's dns stands in for that of the lease if it says anything.
        """
        # A DHCP server may have told the MTU.
        mtu = on.refresh().mtu if on is not None and self.ipam.uses_link else 0
        interfaces = tuple(
            Interface(
                link.name,
                link.mac,
                mtu if link is on else 0,
                self.request.netns if link.netns is self.container else "",
            )
            for link in links
        )
        index = links.index(on) if on is not None else None
        ips = tuple(IpConfig(ip.address, ip.gateway, index) for ip in lease.ips)
        return Result(interfaces, ips, lease.routes, self.config.dns or lease.dns, lease.ntp)

    def delete_veth(self) -> None:
        """Remove the cable to the container, by either end.

        The path of the namespace may lead to another container by now. So the host's end goes first, which carries
        this attachment's name; the container's end is taken only if nobody else's label hangs on its cable.
        """
        self.ipam.delete_before_link()
        if self.host.find_link(self.host_ifname) is not None:
            self.host.links.delete(self.host_ifname)
        elif self.find_owned_link() is not None:
            self.container.links.delete(self.ifname)

    def delete_link(self) -> None:
        """Remove the container's interface, if it carries this attachment's label.

        The path of the namespace may lead to another container by now, and an ADD that met somebody else's interface
        is followed by a DEL as well. What the Go plugins made has no label; it is in their result.
        """
        link = self.container.find_link(self.ifname)
        if link is None:  # an ADD may have been killed before it had given the link its name
            self.container.links.delete(self.host_ifname)
        elif self.owner.owns(link.state.alias) or (self.is_in_prev_result and not is_label(link.state.alias)):
            self.container.links.delete(self.ifname)

    @property
    def is_in_prev_result(self) -> bool:
        """Whether the previous result has this very interface."""
        result = self.prev_result or Result()
        return any(interface.name == self.ifname and interface.sandbox for interface in result.interfaces)

    def delete_masquerade(self) -> None:
        """Masquerade the interface's addresses no more: those of the previous result, else all that can be found.

        It comes after the interface itself is gone, so that no packet leaves with the container's own address, and
        what the container's namespace still has belongs to other interfaces.
        """
        known = [ip.address for ip in self.prev_ips]
        kept = [] if known else self.container.addresses.all()
        self.host.delete_masquerade(self.owner, known or None, kept=kept)

    def find_owned_link(self) -> "Link | None":
        """The container's interface, for DEL; None if it is gone, or if somebody else's label hangs on its cable."""
        link = self.container.find_link(self.ifname)
        peer = self.host.links.find_peer(link) if link is not None else None
        return link if peer is None or self._may_own(peer.state.alias) else None

    def _may_own(self, label: str) -> bool:
        """Whether nobody else's label is there; what the Go plugins made has none."""
        return not is_label(label) or self.owner.owns(label)

    def expect_prev_result(self) -> None:
        """Raise CniError unless every interface, address and route that ADD reported is still there."""
        result = self.required_prev_result
        own = None
        for interface in result.interfaces:
            inside = bool(interface.sandbox)
            if inside and not (interface.name == self.ifname and _same_path(interface.sandbox, self.request.netns)):
                continue
            link = (self.container if inside else self.host).link(interface.name)
            if interface.mac and link.mac != interface.mac.lower():
                raise CniError(f"{link} should have mac {interface.mac}, but has {link.mac}")
            own = link if inside else own
        if own is None:
            raise CniError(
                f"prevResult has no interface {self.ifname} in {self.request.netns}",
                details="CHECK needs the same CNI_IFNAME and CNI_NETNS as the ADD",
            )
        for ip in self.prev_ips:
            self.container.addresses.expect(own, ip.address)
        for route in Lease(tuple(self.prev_ips), result.routes).resolved_routes():
            self.container.routes.expect(own, route)


def _is_on(ip: IpConfig, result: Result, ifname: str) -> bool:
    if ip.interface is None:
        return True
    if not 0 <= ip.interface < len(result.interfaces):
        return False
    interface = result.interfaces[ip.interface]
    return interface.name == ifname and bool(interface.sandbox)


def _same_path(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samefile(one, other)  # noqa: PTH121 - pathlib takes 2 ms to load
    except OSError:
        return False


def _owner(network: str, entry: object) -> Owner:
    if not isinstance(entry, dict):
        raise TypeError("an entry is an object")
    fields = go_json.select_members(entry, ("containerID", "ifname"))
    container_id, ifname = fields.get("containerID", ""), fields.get("ifname", "")
    if not isinstance(container_id, str) or not isinstance(ifname, str):
        raise TypeError("containerID and ifname are strings")
    return Owner(network, container_id, ifname)
