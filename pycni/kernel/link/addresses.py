"""The attribute `addresses` of a namespace: configure interfaces, and add, check and announce addresses."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from functools import partial

from pycni.kernel.link import address_change, routes
from pycni.kernel.link.address_readiness import wait_for_duplicate_address_detection, wait_for_multicast_groups
from pycni.kernel.link.address_requests import addition, list_all, list_with_flags, removal
from pycni.kernel.link.link import Link, update_operstate
from pycni.kernel.link.link_state import UP, get_request
from pycni.kernel.link.links import Links
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError
from pycni.protocol.result import Route


class Addresses(NetnsOperations):
    """The addresses of the links of a network namespace."""

    __slots__ = ()

    def of(self, link: Link) -> list[Cidr]:
        """Return the addresses of the link."""
        return list(list_with_flags(link))

    def all(self) -> list[Cidr]:
        """Return the addresses of all links."""
        return list_all(self._netns)

    def configure(
        self,
        link: Link,
        cidrs: Sequence[Cidr],
        routes_: Sequence[Route],
        *,
        dad: bool = False,
        on_link: bool = True,
        on_lan: bool = False,
    ) -> None:
        """Give the interface of a container its addresses, set it up and add its routes. Raises CniError.

        With `dad`, IPv6 addresses go through duplicate address detection, which takes one to two seconds. Without
        `on_link`, the kernel adds no routes to the subnets of the addresses: `routes_` has to. With `on_lan`, the link
        is on a network with other routers and hosts: it accepts router advertisements, IPv6 addresses go through
        duplicate address detection, and the kernel announces each address when it is added.
        """
        words = ", ".join(map(str, cidrs)) or "no addresses"

        def do() -> None:
            # A DHCP client needs the link up. Then the kernel does not announce the IPv4 addresses that are added.
            was_up = on_lan and link.refresh().up
            with self._netns.enter():  # once for the sysctls and the socket
                sysctl.prefer(self._netns, _sysctls(link.name, cidrs, dad=dad, on_lan=on_lan))
                _send(link, cidrs, routes_, dad=dad or on_lan, on_link=on_link, arp_notify=bool(cidrs))
            if dad or on_lan:
                wait_for_duplicate_address_detection(link, cidrs)
            if was_up:
                self._netns.netlink.outcomes(_announcement(link))  # fails for an ipvlan: its MAC cannot be set

        self._netns.journal.change(f"configure {link} with {words}", do)

    def configure_gateway(self, port: Link, gateways: Sequence[Cidr], routes_: Sequence[Route]) -> None:
        """Give the host's end of a veth pair the gateway addresses, set it up and add the routes to the container.

        Only sysctls of the link itself are changed. Raises CniError.
        """

        def do() -> None:
            port.ignore_router_advertisements()
            port.skip_duplicate_address_detection()
            if any(gateway.version == 6 for gateway in gateways):
                sysctl.prefer(self._netns, {sysctl.link_setting(6, port.name, "disable_ipv6"): "0"})
            _send(port, gateways, routes_)

        words = ", ".join(map(str, gateways))
        self._netns.journal.change(f"make {port} the container's gateway with {words}", do)

    def prepare_for_dhcp(self, link: Link) -> None:
        """Set the interface of a container up before its addresses are known. Raises CniError.

        A DHCP client sends and receives over it; the addresses will be IPv4.
        """

        def do() -> None:
            if link.state.kind == "veth":  # other links are on a LAN and accept its router advertisements
                sysctl.prefer(self._netns, _without_ipv6(link.name))
            link.ensure(up=True)

        self._netns.journal.change(f"set {link} up for DHCP", do)

    def replace(
        self, link: Link, before: Sequence[Cidr], after: Sequence[Cidr], routes_: address_change.RouteChange
    ) -> None:
        """Replace IPv4 addresses of a link that is in use. Routes that others added are kept if possible."""
        address_change.replace_addresses(link, before, after, routes_)

    def announce(self, link: Link) -> None:
        """Send gratuitous ARP and unsolicited neighbour advertisements for the addresses of the link. Raises CniError.

        They are sent at once, not after the call: the next plugin of the chain may change the MAC.
        """

        def do() -> None:
            with explain_errors(f"cannot announce {link}"):
                self._netns.netlink.request(_announcement(link))

        self._netns.journal.change(f"announce {link}", do)

    def wait_until_reachable(self, link: Link, cidrs: Iterable[Cidr]) -> None:
        """Wait until the link can carry frames and receives neighbour solicitations for `cidrs`. Raises CniError.

        The link state is not read again if it could carry frames when it was last read.
        """
        if link.state.operstate != "UP":
            Links(self._netns).wait_for_carrier(link)
        wait_for_multicast_groups(link, cidrs)

    def ensure(self, link: Link, cidr: Cidr, *, force: bool = False) -> None:
        """Add the address to a shared link unless it is there.

        The link may have no other IPv4 address, and no IPv6 address with an overlapping subnet. With `force` those are
        removed, otherwise CniError is raised.
        """
        present = [address for address in list_with_flags(link) if address.version == cidr.version]
        if cidr in present:
            return
        conflicts = [other for other in present if other.version == 4 or other.network.overlaps(cidr.network)]
        if conflicts and not force:
            raise CniError(
                f'"{link}" already has an IP address different from {cidr}: {", ".join(map(str, conflicts))}',
                details=f"remove it (ip addr del {conflicts[0]} dev {link}) or let forceAddress replace it",
            )
        for other in conflicts:
            self._netns.journal.change(f"remove {other} from {link}", partial(_remove, link, other))
        self._netns.journal.change(f"add {cidr} to {link}", partial(_add, link, cidr))

    def expect(self, link: Link, cidr: Cidr) -> None:
        """Raise CniError unless the link has the address with this prefix length."""
        if cidr not in list_with_flags(link):
            raise CniError(f"{link} has lost {cidr}")


def _add(link: Link, cidr: Cidr) -> None:
    with explain_errors(f"cannot add {cidr} to {link}"):
        (outcome,) = link.netns.netlink.outcomes(addition(link.index, cidr))
        # EEXIST: another ADD has just added it.
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
            raise outcome


def _remove(link: Link, cidr: Cidr) -> None:
    with explain_errors(f"cannot remove {cidr} from {link}"):
        (outcome,) = link.netns.netlink.outcomes(removal(link.index, cidr))
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EADDRNOTAVAIL:
            raise outcome


def _sysctls(name: str, cidrs: Sequence[Cidr], *, dad: bool, on_lan: bool) -> dict[str, str]:
    if not cidrs:
        return {}  # Ethernet only: the container configures the interface itself
    # On a LAN, addresses from router advertisements are announced too.
    settings = {sysctl.link_setting(6, name, "ndisc_notify"): "1"} if on_lan else {}
    if any(cidr.version == 6 for cidr in cidrs):
        # lo comes first: no link of a namespace has working IPv6 unless lo has.
        settings |= {sysctl.link_setting(6, "lo", "disable_ipv6"): "0"}
        wanted = {"disable_ipv6": "0", "keep_addr_on_down": "1", "ndisc_notify": "1"}
        wanted |= {} if on_lan else {"accept_ra": "0"}
        wanted |= {"enhanced_dad": "1", "accept_dad": "1"} if dad else {"accept_dad": "0"}
        settings |= {sysctl.link_setting(6, name, key): value for key, value in wanted.items()}
    elif not dad and not on_lan:
        settings |= _without_ipv6(name)
    return settings


def _without_ipv6(name: str) -> dict[str, str]:
    """Return the sysctls of a link that gets no IPv6 address."""
    return {sysctl.link_setting(6, name, key): "0" for key in ("accept_dad", "accept_ra")}


def _send(
    link: Link,
    cidrs: Sequence[Cidr],
    routes_: Sequence[Route],
    *,
    dad: bool = False,
    on_link: bool = True,
    arp_notify: bool = False,
) -> None:
    # The kernel announces the IPv4 addresses that the link has when it is set up. It announces the IPv6 addresses that
    # are added to a link that is up: after duplicate address detection, or at once if that is seen to be off.
    early = [cidr for cidr in cidrs if cidr.version == 4 or not dad]
    late = [cidr for cidr in cidrs if cidr not in early]

    def additions(cidrs: Sequence[Cidr]) -> list[tuple[str, Message]]:
        messages = [addition(link.index, cidr, dad=dad, on_link=on_link) for cidr in cidrs]
        return [(f"cannot add {cidr} to {link}", message) for cidr, message in zip(cidrs, messages, strict=True)]

    up = link.set_request(flags=UP, change=UP)
    steps = [*additions(early), (f"cannot set {link} up", up), *additions(late)]
    for route in routes_:
        by = f" via {route.gw}" if route.gw else ""
        steps.append((f"cannot add the route to {route.dst}{by} on {link}", routes.addition(link.index, route)))
    optional = [_enable_arp_notify(link)] if arp_notify else []
    messages = *optional, *[message for _, message in steps], get_request(link.name)
    *outcomes, state = link.netns.netlink.outcomes(*messages)[len(optional) :]
    for (failure, _), outcome in zip(steps, outcomes, strict=True):
        if isinstance(outcome, NetlinkError):
            with explain_errors(failure):
                raise outcome
    update_operstate(link, state)


def _enable_arp_notify(link: Link) -> Message:
    """Return the request that sets the sysctl arp_notify of the link, which is faster than a write to /proc/sys.

    With it the kernel sends gratuitous ARP for IPv4 addresses.
    """
    setting = {"attrs": [("IPV4_DEVCONF_ARP_NOTIFY", 1)]}
    family = {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", setting)]})]}
    return link.set_request(("IFLA_AF_SPEC", family))


def _announcement(link: Link) -> Message:
    """Return the request that makes the kernel announce the addresses of the link: it sets the MAC that the link has.

    With arp_notify and ndisc_notify the kernel then sends gratuitous ARP and unsolicited neighbour advertisements.
    (Sending them over a packet socket would cost 4 to 8 ms when the socket is closed.)
    """
    return link.set_request(("IFLA_ADDRESS", link.mac))
