"""The call as a plugin sees it: configuration, network namespaces, IPAM, and the result of earlier plugins."""

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
    """A network on this host: the argument of `Plugin.status` and `Plugin.gc`.

    `config` is the plugin's configuration, `request` the call, `journal` records changes for rollback, and `ipam` calls
    the IPAM plugin that the configuration names.

        def status(self, cni: Network[MtuConfig]) -> None:
            cni.ipam.status()
    """

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
        """The network namespace of the runtime that made the call, the host."""
        from pycni.kernel.namespace import Namespace  # loads pyroute2, which IPAM plugins do not need

        host = Namespace.own(self.journal, self.request.host_fd)
        host.read_only = self.request.command == "CHECK"
        self._opened.append(host)
        return host

    def find_namespace(self, cookie: str, *paths: str) -> "Namespace | None":
        """Return the network namespace with this cookie (`netns_cookie`) if it is at one of the paths, else None.

        After the first container is gone, the path may be that of another container's namespace.
        """
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
        """Return the plugin named by `type` in the configuration `document`, for delegation (SPEC section 4)."""
        return Delegate(document, self.request, self._invoke, self.journal)

    @cached_property
    def valid_attachments(self) -> list[Owner] | None:
        """The attachments that GC must keep, from `cni.dev/valid-attachments` (SPEC section 2, GC).

        None if the key is missing: then no attachment is known to be stale. Raises ConfigError if it is malformed.
        """
        if _VALID not in self.request.config:
            return None
        entries = self.request.config[_VALID] or []
        try:
            return [_owner(self.name, entry) for entry in entries]
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{_VALID}: {error}", details='it must be a list of {"containerID": "...", "ifname": "..."}'
            ) from None

    @property
    def stale(self) -> Stale:
        """The ownership labels of this network's stale attachments, which GC removes.

        Raises ConfigError if the caller gave no list of valid attachments.
        """
        if self.valid_attachments is None:
            raise ConfigError(f"{_VALID} is missing: it is not known which attachments are stale")
        return Stale(self.name, self.valid_attachments)

    def unused_addresses(self, ips: Iterable[Address]) -> list[Address]:
        """Return the addresses in `ips` that belong to a subnet of this network and that no attachment uses any more.

        GC uses it for rules that name an address but no owner, such as those of the Go plugins.
        """
        return self._address_usage.unused_addresses(ips, self.stale)

    def is_unused_interface(self, interface: str) -> bool:
        """Return whether no attachment of any network has the interface `CONTAINERID_IFNAME` any more.

        GC uses it for backup files of the Go plugin tuning, which name an interface but no network.
        """
        return self._address_usage.is_unused_interface(interface, self.stale)

    @cached_property
    def _address_usage(self) -> "AddressUsage":
        from pycni.sdk.address_usage import AddressUsage  # only GC needs it

        return AddressUsage.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in self._opened:
            namespace.close()


class Attachment(Network[C]):
    """One interface of one container on a network: the argument of `Plugin.add`, `check` and `delete`.

    It has all members of Network. `args` holds the values of the keys in CNI_ARGS that the plugin declares
    (`Plugin.cni_args`).

        def add(self, cni: Attachment[MtuConfig]) -> Result:
            eth = cni.container.link(cni.ifname)
            eth.set(mtu=cni.config.mtu)
            return cni.required_prev_result
    """

    def __init__(self, config: C, request: Request, journal: Journal, invoke: Invoke, args: dict[str, str]) -> None:
        super().__init__(config, request, journal, invoke)
        self.args = args

    @property
    def all_args(self) -> dict[str, str]:
        """All well-formed pairs of CNI_ARGS, for plugins whose configuration names the keys that they read."""
        return cni_args.parse_leniently(self.request.args)

    @property
    def container_id(self) -> str:
        """The id of the container (CNI_CONTAINERID)."""
        return self.request.container_id

    @property
    def ifname(self) -> str:
        """The name of the interface in the container (CNI_IFNAME)."""
        return self.request.ifname

    @cached_property
    def owner(self) -> Owner:
        """The owner of everything that this attachment creates; its label marks links and firewall elements."""
        return Owner(self.name, self.container_id, self.ifname)

    @property
    def host_ifname(self) -> str:
        """The name of the host's end of a veth pair to the container. It is derived from the owner."""
        return self.owner.host_ifname

    @cached_property
    def container(self) -> "Namespace":
        """The network namespace of the container (CNI_NETNS).

        Raises CniError, code 8, if it cannot be opened. For DEL, which may come after the namespace is gone, it is then
        an empty namespace in which there is nothing to delete.
        """
        from pycni.kernel.namespace import Namespace, NoNamespace

        try:
            container = Namespace(self.request.netns, self.journal, self.request.netns_fd)
        except CniError:
            if self.request.command == "DEL":
                return NoNamespace()  # type: ignore[return-value] # has the methods that DEL uses
            raise
        container.read_only = self.request.command == "CHECK"
        self._opened.append(container)
        return container

    @property
    def netns_cookie(self) -> str:
        """An identifier of the container's network namespace that no other namespace has, even at the same path later.

        Raises CniError, code 8, if the namespace cannot be opened.
        """
        netns = NetnsHandle(self.request.netns, self.journal, self.request.netns_fd)
        try:
            return netns.cookie
        finally:
            netns.close()

    @cached_property
    def prev_result(self) -> Result | None:
        """The result of the previous plugin of the chain (ADD), or the final result of ADD (CHECK, DEL).

        None if the caller gave none. Raises CniError, code 6, if it cannot be parsed; for DEL it is None then.
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
        """The prevResult. Raises ConfigError if there is none, and CniError, code 6, if it cannot be parsed."""
        if self.prev_result is not None:
            return self.prev_result
        if self.request.command == "ADD":
            raise ConfigError(
                "Required prevResult missing: must be called as chained plugin",
                details=f"it must come after the plugin of the network configuration list that creates {self.ifname}",
            )
        raise ConfigError("Required prevResult missing", details="the runtime must pass the result of the ADD")

    @property
    def prev_ips(self) -> list[IpConfig]:
        """The addresses of this interface in prevResult; empty if there is no prevResult."""
        result = self.prev_result or Result()
        return [ip for ip in result.ips if _is_on(ip, result, self.ifname)]

    def result(self, *links: "Link", lease: Lease = _NO_LEASE, on: "Link | None" = None) -> Result:
        """Return a result with these links, in this order, and the addresses, routes and DNS of `lease`.

        `on` is the link that has the addresses; it must be one of `links`. A `dns` in the configuration replaces that
        of the lease.

            return cni.result(bridge, port, eth, lease=lease, on=eth)
        """
        # A DHCP server may have set the MTU of the link.
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
        """Delete the veth pair to the container, by either end. A pair that is gone is fine.

        By the time of DEL, CNI_NETNS may be the namespace of another container. The host's end has a name derived from
        the owner, so it is tried first. The container's end is deleted only if its peer has no label of another owner.
        """
        self.ipam.delete_before_link()
        if self.host.find_link(self.host_ifname) is not None:
            self.host.links.delete(self.host_ifname)
        elif self.find_owned_link() is not None:
            self.container.links.delete(self.ifname)

    def delete_link(self) -> None:
        """Delete the container's interface if it has the ownership label of this attachment. One that is gone is fine.

        By the time of DEL, CNI_NETNS may be the namespace of another container. A DEL also follows an ADD that failed
        because the interface existed. An interface without a label was created by a Go plugin; it is deleted if
        prevResult lists it.
        """
        link = self.container.find_link(self.ifname)
        if link is None:  # an ADD may have been killed before it renamed the link
            self.container.links.delete(self.host_ifname)
        elif self.owner.owns(link.state.alias) or (self.is_in_prev_result and not is_label(link.state.alias)):
            self.container.links.delete(self.ifname)

    @property
    def is_in_prev_result(self) -> bool:
        """Whether prevResult lists this interface of the container."""
        result = self.prev_result or Result()
        return any(interface.name == self.ifname and interface.sandbox for interface in result.interfaces)

    def delete_masquerade(self) -> None:
        """Delete the masquerade rules of this attachment: for the addresses in prevResult, else for all that are found.

        Call it after the interface is deleted. Then no packet can leave with the container's own address, and the
        addresses that the container still has belong to other interfaces.
        """
        known = [ip.address for ip in self.prev_ips]
        kept = [] if known else self.container.addresses.all()
        self.host.firewall.masquerade.delete(self.owner, known or None, kept=kept)

    def find_owned_link(self) -> "Link | None":
        """Return the container's interface, for DEL; None if it is gone or its peer has a label of another owner."""
        link = self.container.find_link(self.ifname)
        peer = self.host.links.find_peer(link) if link is not None else None
        return link if peer is None or self._may_own(peer.state.alias) else None

    def _may_own(self, label: str) -> bool:
        """Return whether `label` is not the label of another owner. The Go plugins set no labels."""
        return not is_label(label) or self.owner.owns(label)

    def expect_prev_result(self) -> None:
        """Raise CniError unless the interfaces, addresses and routes in prevResult are as ADD reported them.

        Checks all interfaces of the host, and in the container the interface of this attachment with its addresses.
        Raises ConfigError if there is no prevResult.
        """
        result = self.required_prev_result
        eth = None
        for interface in result.interfaces:
            inside = bool(interface.sandbox)
            if inside and not (interface.name == self.ifname and _same_path(interface.sandbox, self.request.netns)):
                continue
            link = (self.container if inside else self.host).link(interface.name)
            if interface.mac and link.mac != interface.mac.lower():
                raise CniError(f"{link} should have mac {interface.mac}, but has {link.mac}")
            eth = link if inside else eth
        if eth is None:
            raise CniError(
                f"prevResult has no interface {self.ifname} in {self.request.netns}",
                details="CHECK needs the same CNI_IFNAME and CNI_NETNS as the ADD",
            )
        for ip in self.prev_ips:
            self.container.addresses.expect(eth, ip.address)
        for route in Lease(tuple(self.prev_ips), result.routes).resolved_routes():
            self.container.routes.expect(eth, route)


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
        raise TypeError("an entry must be an object")
    fields = go_json.select_members(entry, ("containerID", "ifname"))
    container_id, ifname = fields.get("containerID", ""), fields.get("ifname", "")
    if not isinstance(container_id, str) or not isinstance(ifname, str):
        raise TypeError("containerID and ifname must be strings")
    return Owner(network, container_id, ifname)
