"""VRFs: links whose members are routed by a table of their own (l3mdev)."""

import errno
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from pycni.kernel.link import addresses, links, routes, rules
from pycni.kernel.link.links import UP, Link, LinkState, explained
from pycni.kernel.link.routes import MAIN, SourceRoute
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.kernel.netns import lock
from pycni.kernel.netns.handle import NetnsHandle
from pycni.protocol.address import Cidr
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)

_NEW = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
_CHOOSING = "choosing a routing table"


def ensure(namespace: NetnsHandle, name: str, table: int | None) -> Link:
    """The VRF called `name`, up: with this table, if it is given, else when it is made with a free one.

    One that was made goes again if the call fails, unless it has members by then. Raises CniError if there is
    something else of that name, or if it has another table.
    """
    found = links.find(namespace, name)
    if found is None:
        return _create(namespace, name, rules.free_table(namespace, first=1) if table is None else table)
    if found.state.kind != "vrf":
        raise CniError(
            f"Netlink {name} is not a VRF",
            details=f'it is of kind "{found.state.kind or "physical"}"; choose another name with "vrfname"',
        )
    if table not in (None, found.state.table):
        raise CniError(
            f"VRF {name} already exist with different routing table {found.state.table}",
            details=f'the configuration has table {table}: leave "table" out, or choose another name with "vrfname"',
        )
    found.ensure(up=True)
    return found


def _create(namespace: NetnsHandle, name: str, table: int) -> Link:
    data = [("IFLA_INFO_KIND", "vrf"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_VRF_TABLE", table)]})]
    attributes = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": data})]
    creation = link_message(rtnetlink.NEWLINK, attributes, how=_NEW, flags=UP, change=UP)

    def do() -> Link:
        with explained(f"cannot create VRF {name} with table {table}"):
            namespace.netlink.request(creation)
        return links.get(namespace, name)

    def undo() -> None:
        with lock.locked(namespace, _CHOOSING):  # nobody is about to join it
            found = links.find_state(namespace, name)
            if found is not None:
                _delete_if_empty(namespace, found)

    return namespace.journal.change(f"create VRF {name} with table {table}", do, undo)


def _delete_if_empty(namespace: NetnsHandle, vrf: LinkState) -> None:
    if not any(state.master == vrf.index for state in links.all_states(namespace)):
        links.delete(namespace, vrf.name)


def join(link: Link, vrf: Link) -> None:
    """Make the link a member of the VRF, with its addresses; its routes of table main go to the VRF's table."""
    master = link.state.master
    if master:
        found = links.find_state_at(link.netns, master)
        raise CniError(
            f"interface {link} has already a master set: {found.name if found else master}",
            details="an interface is in one bridge, bond or VRF at a time",
        )
    before = _Belongings.of(link)

    def undo() -> None:
        _change_master(link, 0, before)

    def do() -> None:
        try:
            _change_master(link, vrf.index, before.with_table(MAIN, vrf.state.table))
        except BaseException:
            with suppress(CniError):
                undo()
            raise

    link.netns.journal.change(f"put {link} into VRF {vrf}", do, undo)


def leave(namespace: NetnsHandle, link: Link | None, name: str) -> None:
    """Take the link out of the VRF called `name`, which goes with its last member.

    The link's routes of the VRF's table go to table main, those that can. A link or a VRF that is gone is fine.
    """
    with lock.locked(namespace, _CHOOSING):
        found = links.find_state(namespace, name)
        if found is None or found.kind != "vrf":
            return
        member = links.find_state_at(namespace, link.index) if link is not None else None
        if link is not None and member is not None and member.master == found.index:
            try:
                _change_master(link, 0, _Belongings.of(link).with_table(found.table, MAIN))
            except CniError as error:  # the next DEL of the chain removes the interface: that must not wait for this
                log.warning("%s has not left VRF %s with all it had: %s", link, name, error)
        _delete_if_empty(namespace, found)


@dataclass(frozen=True)
class _Belongings:
    """What a link loses when its master changes, since the kernel sets it down and up again (cycle_netdev)."""

    cidrs: Mapping[Cidr, bool]  # of IPv6, and whether their subnets are behind the link; those of IPv4 stay
    routes: Sequence[SourceRoute]  # those by a gateway last

    @classmethod
    def of(cls, link: Link) -> Self:
        """What it has now. What it has of routers' advertisements comes again from there."""
        cidrs: dict[Cidr, bool] = {
            cidr: on_link for cidr, on_link in addresses.lasting_on(link).items() if cidr.version == 6
        }
        made = [route for version in (4, 6) for route in routes.made_on(link, version)]
        return cls(cidrs, sorted(made, key=lambda route: route.gw is not None))

    def with_table(self, table: int | None, other: int | None) -> Self:
        """The same, with the routes of a table in another one."""
        moved = [replace(route, table=other) if route.table == table else route for route in self.routes]
        return replace(self, routes=moved)


def _change_master(link: Link, master: int, belongings: _Belongings) -> None:
    """Put the link under another master, 0 for none, and give it its belongings again."""
    with explained(f"cannot change the master of {link}"):
        link.netns.netlink.request(link_message(rtnetlink.NEWLINK, [("IFLA_MASTER", master)], index=link.index))
    # What the kernel keeps (net.ipv6.conf.*.keep_addr_on_down) gets its route again only when the link carries frames,
    # but what is new gets one at once.
    link.netns.netlink.outcomes(*[addresses.removal(link.index, cidr) for cidr in belongings.cidrs])
    additions = [
        (f"cannot give {cidr} to {link} again", addresses.addition(link.index, cidr, on_link=on_link))
        for cidr, on_link in belongings.cidrs.items()
    ]
    additions += [
        (f"cannot give {link} its route to {route.dst} in table {route.table}", routes.addition(link.index, route))
        for route in belongings.routes
    ]
    outcomes = link.netns.netlink.outcomes(*[message for _, message in additions])
    for (failure, _), outcome in zip(additions, outcomes, strict=True):
        if isinstance(outcome, NetlinkError) and outcome.errno != errno.EEXIST:
            with explained(failure):
                raise outcome
