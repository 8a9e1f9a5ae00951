"""Addresses, routes, rules and settings of a namespace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from pycni.kernel.link import addresses, configure, readdress, routes, rules, vrf
from pycni.kernel.link.links import Link, explained
from pycni.kernel.link.routes import SourceRoute
from pycni.kernel.link.rules import Rule
from pycni.kernel.netns import lock, sysctl
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError
from pycni.protocol.result import Route

if TYPE_CHECKING:
    from pycni.kernel.link.readdress import RouteChange
    from pycni.kernel.link.routes import SourceRoute


from pycni.kernel.namespace.links import LinkVerbs

_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


class RoutingVerbs(LinkVerbs):
    """The verbs of all that routes."""

    def wait_until_reachable(self, link: Link, cidrs: Iterable[Cidr]) -> None:
        """Wait until the link carries frames and hears who asks for these addresses of its own. Raises CniError.

        A link that carried frames when it was last looked at need not be waited for.
        """
        if link.state.operstate != "UP":
            self.wait_for_carrier(link)
        addresses.wait_until_heard(link, cidrs)

    def addresses(self, link: Link) -> list[Cidr]:
        """The addresses of the link."""
        return list(addresses.on(link))

    def all_addresses(self) -> list[Cidr]:
        """Every address of the namespace."""
        return addresses.in_namespace(self)

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
        """Give a link of ours its addresses, set it up, add its routes.

        Without `on_link` the rest of the subnets is not behind the link; its routes say where. With `on_lan` the link
        is on a network of others: it heeds their routers, and they hear of each address as it appears.
        """
        configure.configure(link, cidrs, routes_, dad=dad, on_link=on_link, on_lan=on_lan)

    def prepare(self, link: Link) -> None:
        """Set a link of ours up before its addresses are known."""
        configure.prepare(link)

    def readdress(self, link: Link, before: Sequence[Cidr], after: Sequence[Cidr], routes_: RouteChange) -> None:
        """Give a link that is in use other IPv4 addresses; what else there is of routes over it stays if it can."""
        readdress.readdress(link, before, after, routes_)

    def other_routes(self, link: Link, own: Sequence[Route]) -> tuple[SourceRoute, ...]:
        """The IPv4 routes over the link that somebody has made, but for these."""
        return readdress.others(link, own)

    def configure_port(self, port: Link, gateways: Sequence[Cidr], routes_: Sequence[Route]) -> None:
        """Give the host's end of a cable the gateways' addresses, set it up, add the routes to the container."""
        configure.configure_port(port, gateways, routes_)

    def announce(self, link: Link) -> None:
        """Tell the neighbours where the link's addresses live now, by gratuitous ARP and neighbour advertisements.

        At once, not when the caller has its answer: the next plugin of the chain may give the link another MAC.
        """

        def do() -> None:
            with explained(f"cannot announce {link}"):
                self.netlink.request(configure.announcement(link))

        self.journal.change(f"announce {link}", do)

    def ensure_address(self, link: Link, cidr: Cidr, *, force: bool = False) -> None:
        """Give a shared link an address; with `force` one that is in the way goes."""
        addresses.ensure(link, cidr, force=force)

    def expect_address(self, link: Link, cidr: Cidr) -> None:
        """Raise CniError unless the link has the address."""
        addresses.expect(link, cidr)

    def expect_route(self, link: Link, route: Route) -> None:
        """Raise CniError unless the route is there, over this link."""
        routes.expect(link, route)

    def routes_of(self, link: Link, version: int) -> list[SourceRoute]:
        """The routes of a family over the link in table main, but for those of IPv6 that never leave the link."""
        return routes.of(link, version)

    def create_route(self, link: Link, route: Route) -> None:
        """A route over the link, in the place of one to the same destination in its table."""
        routes.create(link, route)

    def withdraw_route(self, link: Link, route: Route) -> None:
        """Take the route away; it comes back if ADD fails."""
        routes.withdraw(link, route)

    def locked(self, doing: str) -> AbstractContextManager[None]:
        """Keep others of ours from doing the same in the namespace, `doing` as in "choosing a routing table"."""
        return lock.locked(self, doing)

    def create_source_rule(self, source: Address, table: int | None = None) -> int:
        """Route what comes from the address by a table, a free one unless it is named; returns which."""
        if table is None:
            table = rules.free_table(self)
        rules.create(self, Rule(source, table))
        return table

    def expect_source_rule(self, source: Address, table: int | None = None) -> int:
        """Raise CniError unless what comes from the address is routed by a table, `table` if named; returns which."""
        return rules.expect(self, source, table)

    def delete_source_rules(self, sources: Collection[Address], table: int | None = None) -> None:
        """Route what comes from these addresses as everything else: by the table no more, or by none of its own."""
        self.journal.attempt("delete rules of source addresses", partial(rules.delete, self, sources, table))

    def ensure_vrf(self, name: str, table: int | None = None) -> Link:
        """The VRF called `name`, up, made if it is missing: with the table, or if none is given with a free one.

        To be called, like `join_vrf`, while the choice of tables is locked; CniError if it is not such a VRF.
        """
        return vrf.ensure(self, name, table)

    def join_vrf(self, link: Link, master: Link) -> None:
        """Make the link a member of the VRF; its addresses and routes come along, and go back if the call fails."""
        vrf.join(link, master)

    def leave_vrf(self, link: Link | None, name: str) -> None:
        """Take the link, if it is there, out of the VRF called `name`, which goes with its last member."""
        self.journal.attempt(f"leave VRF {name}", partial(vrf.leave, self, link, name))

    def ensure_forwarding(self, cidrs: Iterable[Cidr]) -> None:
        """Forward packets of the families of these addresses."""
        sysctl.ensure(self, {_FORWARDING[version]: "1" for version in sorted({cidr.version for cidr in cidrs})})

    def set_sysctls(self, settings: Mapping[str, str]) -> None:
        """Give each setting (a path under /proc/sys/net) its value; it is put back if the call fails."""
        sysctl.change(self, settings)

    def expect_writable_sysctls(self) -> None:
        """Raise CniError, code 50, if this process may not change settings."""
        sysctl.probe(self)

    def expect_sysctls(self, settings: Mapping[str, str]) -> None:
        """Raise CniError for the first setting that has another value."""
        sysctl.expect(self, settings)

    def expect_in_vrf(self, link: Link, master: Link) -> None:
        """Raise CniError unless the link is a member of the VRF."""
        if link.refresh().master != master.index:
            raise CniError(f"failed to find {link} associated to vrf {master}")
