"""The attribute `vrfs` of a namespace: VRFs, links whose members are routed by a table of their own (l3mdev)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from pycni.kernel.link import address_requests, routes
from pycni.kernel.link.deletion import delete
from pycni.kernel.link.link import Link, find_link, get_link
from pycni.kernel.link.link_state import UP, LinkState, all_states, find_state, find_state_at
from pycni.kernel.link.routes import MAIN, SourceRoute
from pycni.kernel.link.rules import free_table, lock_tables
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, explain_errors, link_message
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)


class Vrfs(NetnsOperations):
    """The VRFs of a network namespace. Hold `routes.lock_tables()` while a VRF is chosen and joined."""

    __slots__ = ()

    def ensure(self, name: str, table: int | None = None) -> Link:
        """Return the VRF called `name`, up; create it if it does not exist, with this table or with a free one.

        A VRF that this call has created is deleted again if the call fails, unless it has members by then. Raises
        CniError if `name` is another kind of link, or has another table.
        """
        found = find_link(self._netns, name)
        if found is None:
            return self._create(name, free_table(self._netns, first=1) if table is None else table)
        if found.state.kind != "vrf":
            raise CniError(
                f"Netlink {name} is not a VRF",
                details=f'it is of kind "{found.state.kind or "physical"}"; choose another name with "vrfname"',
            )
        if table not in (None, found.state.table):
            raise CniError(
                f"VRF {name} already exist with different routing table {found.state.table}",
                details=f'the configuration has table {table}: remove "table", or choose another name with "vrfname"',
            )
        found.ensure(up=True)
        return found

    def _create(self, name: str, table: int) -> Link:
        data = [("IFLA_INFO_KIND", "vrf"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_VRF_TABLE", table)]})]
        attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": data})]
        creation = link_message(rtnetlink.NEWLINK, attributes, how=rtnetlink.CREATE_NEW, flags=UP, change=UP)

        def do() -> Link:
            with explain_errors(f"cannot create VRF {name} with table {table}", rolled_back=True):
                self._netns.netlink.request(creation)
            return get_link(self._netns, name)

        def undo() -> None:
            with lock_tables(self._netns):  # so that no other call is about to join it
                found = find_state(self._netns, name)
                if found is not None:
                    _delete_if_empty(self._netns, found)

        return self._netns.journal.change(f"create VRF {name} with table {table}", do, undo)

    def join(self, link: Link, vrf: Link) -> None:
        """Make the link a member of the VRF. Its addresses stay, its routes of table main move to the VRF's table.

        Raises CniError, for example if the link has another master.
        """
        master = link.state.master
        if master:
            found = find_state_at(self._netns, master)
            raise CniError(
                f"interface {link} has already a master set: {found.name if found else master}",
                details="an interface is in one bridge, bond or VRF at a time",
            )
        before = _AddressesAndRoutes.read(link)

        def do() -> None:
            _change_master(link, vrf.index, before.with_table(MAIN, vrf.state.table))

        def undo() -> None:
            state = find_state_at(self._netns, link.index)
            if state is not None and state.master == vrf.index:
                _change_master(link, 0, before)

        self._netns.journal.change(f"put {link} into VRF {vrf}", do, undo)

    def leave(self, link: Link | None, name: str) -> None:
        """Take the link, unless it is None, out of the VRF called `name`. Delete the VRF if it has no members left.

        The link's routes of the VRF's table move to table main if possible. Go on if this fails.
        """
        self._netns.journal.attempt(f"leave VRF {name}", partial(self._leave, link, name))

    def _leave(self, link: Link | None, name: str) -> None:
        with lock_tables(self._netns):
            found = find_state(self._netns, name)
            if found is None or found.kind != "vrf":
                return
            member = find_state_at(self._netns, link.index) if link is not None else None
            if link is not None and member is not None and member.master == found.index:
                try:
                    _change_master(link, 0, _AddressesAndRoutes.read(link).with_table(found.table, MAIN))
                except CniError as error:  # the next plugin's DEL deletes the interface: it must still run
                    log.warning("%s has left VRF %s, but not with all addresses and routes: %s", link, name, error)
            _delete_if_empty(self._netns, found)

    def expect_member(self, link: Link, vrf: Link) -> None:
        """Raise CniError unless the link is a member of the VRF."""
        if link.refresh().master != vrf.index:
            raise CniError(f"failed to find {link} associated to vrf {vrf}")


def _delete_if_empty(netns: NetnsHandle, vrf: LinkState) -> None:
    if not any(state.master == vrf.index for state in all_states(netns)):
        delete(netns, vrf.name)


@dataclass(frozen=True)
class _AddressesAndRoutes:
    """Addresses and routes that a link loses when its master changes: the kernel sets it down and up (cycle_netdev)."""

    cidrs: Mapping[Cidr, bool]  # of IPv6, and whether the kernel adds the route to the subnet; those of IPv4 stay
    routes: Sequence[SourceRoute]  # those by a gateway last

    @classmethod
    def read(cls, link: Link) -> Self:
        """Return what the link has now. Router advertisements will add their addresses and routes again."""
        cidrs: dict[Cidr, bool] = {
            cidr: on_link for cidr, on_link in address_requests.list_permanent(link).items() if cidr.version == 6
        }
        configured = [route for version in (4, 6) for route in routes.configured(link, version)]
        return cls(cidrs, sorted(configured, key=lambda route: route.gw is not None))

    def with_table(self, table: int | None, other: int | None) -> Self:
        """Return a copy in which the routes of `table` are in table `other`."""
        moved = [replace(route, table=other) if route.table == table else route for route in self.routes]
        return replace(self, routes=moved)


def _change_master(link: Link, master: int, lost: _AddressesAndRoutes) -> None:
    """Give the link another master, 0 for none, and add its addresses and routes again. Raises CniError."""
    with explain_errors(f"cannot change the master of {link}"):
        link.netns.netlink.request(link.set_request(("IFLA_MASTER", master)))
    # Addresses that the kernel has kept (net.ipv6.conf.*.keep_addr_on_down) get the route to their subnet only when the
    # link has a carrier again. New addresses get it at once.
    link.netns.netlink.outcomes(*[address_requests.removal(link.index, cidr) for cidr in lost.cidrs])
    additions = [
        (f"cannot add {cidr} to {link} again", address_requests.addition(link.index, cidr, on_link=on_link))
        for cidr, on_link in lost.cidrs.items()
    ]
    additions += [
        (f"cannot add the route to {route.dst} on {link} in table {route.table}", routes.addition(link.index, route))
        for route in lost.routes
    ]
    outcomes = link.netns.netlink.outcomes(*[message for _, message in additions])
    for (failure, _), outcome in zip(additions, outcomes, strict=True):
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
            with explain_errors(failure):
                raise outcome
