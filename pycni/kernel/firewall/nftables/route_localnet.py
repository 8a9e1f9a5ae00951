"""Reaching containers from 127.0.0.1: route_localnet of the interface that leads to them, while any of them needs it.

Three things belong together: the setting, its guard in nftables (a set element that keeps neighbours out of 127.0.0.1
and notes what the setting was before), and a counter, which nftables keeps for as long as an attachment refers to it.
Whoever takes the setting back has the place to himself; those who need it share it.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from pycni.kernel.firewall.nftables import transaction
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import NftError
from pycni.kernel.firewall.nftables.transaction import CounterChange, ElementChange
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.lock import locked
from pycni.kernel.owner import digest
from pycni.protocol.errors import CniError

_NAME = re.compile(r"[A-Za-z0-9_.-]+")  # what needs no quotes
_DOING = "changing route_localnet"


def counter(link: str) -> str:
    """The counter whose users are who is reached from 127.0.0.1 by the link."""
    return f"localnet-{link}" if _NAME.fullmatch(link) else f"localnet-{digest(link)[:16]}"


def shared(netns: NetnsHandle) -> AbstractContextManager[None]:
    """Keep whoever would take a setting back waiting."""
    return locked(netns, _DOING, shared=True)


def before(netns: NetnsHandle, link: str) -> str:
    """What the setting is, to be noted by its guard."""
    return sysctl.read(netns, _setting(link)) or "0"


def ensure(netns: NetnsHandle, link: str) -> None:
    """Turn it on, for an attachment that refers to the counter already."""
    with shared(netns):
        sysctl.ensure(netns, {_setting(link): "1"})


def expect(netns: NetnsHandle, link: str) -> None:
    """Raise CniError unless it is on."""
    if sysctl.read(netns, _setting(link)) != "1":
        raise CniError(f"127.0.0.1 does not lead to the container: sysctl net/{_setting(link)} is not 1")


def leave_unused(netns: NetnsHandle, table: str, guards: Callable[[], Iterable[tuple[str, str]]]) -> None:
    """Where nobody needs it any more the setting goes back to what it was, and then its guard goes.

    `guards` tells the links that are guarded, and what the setting was there.
    """
    family, _, name = table.partition(" ")
    with locked(netns, _DOING):
        kernel = lookup(netns)
        for link, was in guards():
            if kernel.counter_uses(family, name, counter(link)):
                continue
            try:
                transaction.apply(netns, [CounterChange("delete", table, counter(link))])
            except NftError as error:
                if error.busy:
                    continue
                if not error.missing:  # it is, if a DEL was killed between this line and the last
                    raise
            sysctl.prefer(netns, {_setting(link): was})
            transaction.apply(netns, [ElementChange("delete", table, "guarded", f'"{link}"')])


def _setting(link: str) -> str:
    return sysctl.link_setting(4, link, "route_localnet")
