"""The sysctl route_localnet of an interface, on while attachments behind it are reached from 127.0.0.1.

With route_localnet, the kernel routes packets from 127.0.0.1 to the container, but also accepts packets for 127.0.0.1
from the network. Three objects belong together: the sysctl; its guard, a set element for which rules drop those packets
and whose comment records the previous value; and a counter, which nftables keeps while elements of attachments refer to
it. To restore the sysctl takes an exclusive lock, to start using it a shared one.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from pycni.kernel.firewall.nftables import transaction
from pycni.kernel.firewall.nftables.elements import TABLE
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.nft import NftError
from pycni.kernel.firewall.nftables.transaction import CounterChange, ElementChange
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.lock import locked
from pycni.kernel.owner import digest
from pycni.protocol.errors import CniError

_UNQUOTED_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_ACTIVITY = "changing route_localnet"


def counter(link: str) -> str:
    """Return the name of the interface's counter."""
    return f"localnet-{link}" if _UNQUOTED_NAME.fullmatch(link) else f"localnet-{digest(link)[:16]}"


def shared(netns: NetnsHandle) -> AbstractContextManager[None]:
    """Return a context in which no other process restores the sysctl. Raises CniError, code 11, after a timeout."""
    return locked(netns, _ACTIVITY, shared=True)


def read(netns: NetnsHandle, link: str) -> str:
    """Return the value of the sysctl: "0" or "1"."""
    return sysctl.read(netns, _setting(link)) or "0"


def ensure(netns: NetnsHandle, link: str) -> None:
    """Turn the sysctl on for an attachment whose elements already refer to the counter."""
    with shared(netns):
        sysctl.ensure(netns, {_setting(link): "1"})


def expect(netns: NetnsHandle, link: str) -> None:
    """Raise CniError unless the sysctl is on."""
    if sysctl.read(netns, _setting(link)) != "1":
        raise CniError(f"the container cannot be reached from 127.0.0.1: sysctl net/{_setting(link)} is not 1")


def restore_unused(netns: NetnsHandle, guards: Callable[[], Iterable[tuple[str, str]]]) -> None:
    """Restore the sysctl of interfaces whose counter is not in use, then delete their guards.

    guards: lists the guarded interfaces with the previous values; it is called while the lock is held.
    """
    family, _, name = TABLE.partition(" ")
    with locked(netns, _ACTIVITY):
        kernel = lookup(netns)
        for link, previous in guards():
            if kernel.counter_use_count(family, name, counter(link)):
                continue
            try:
                transaction.apply(netns, [CounterChange("delete", TABLE, counter(link))])
            except NftError as error:
                if error.busy:
                    continue
                if not error.missing:  # it is missing if an earlier DEL was killed after this deletion
                    raise
            sysctl.prefer(netns, {_setting(link): previous})
            transaction.apply(netns, [ElementChange("delete", TABLE, "guarded", f'"{link}"')])


def _setting(link: str) -> str:
    return sysctl.link_setting(4, link, "route_localnet")
