"""Changing links."""

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.kernel import scheduling
from pycni.kernel.journal import Journal
from pycni.kernel.link import deletion
from pycni.kernel.link.link import Link
from pycni.kernel.link.link_state import LinkState
from pycni.kernel.namespace import Namespace
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError
from pycni.protocol.errors import CniError
from pycni.server.background import BackgroundThreads
from pycni.testing import Host


@pytest.fixture
def namespace(host: Host) -> Iterator[Namespace]:
    """The throwaway host with a cable, v0 to v1."""
    host.run("ip link add v0 type veth peer name v1")
    namespace = Namespace.own(Journal())
    yield namespace
    namespace.close()


def v0(host: Host) -> dict[str, Any]:
    (link,) = host.json("ip -j link show v0")
    return {key: value for key, value in link.items() if key != "qdisc"}  # noop until it is up for the first time


def test_a_refused_change_is_not_half_done(host: Host, namespace: Namespace) -> None:
    """The kernel sets the MAC before it looks at the MTU."""
    before = v0(host)
    with pytest.raises(CniError, match="cannot set v0 mtu 10: invalid argument"):
        namespace.link("v0").set(mac="02:00:00:00:00:01", mtu=10, promisc=True)
    assert v0(host) == before


def test_what_was_changed_is_put_back(host: Host, namespace: Namespace) -> None:
    before = v0(host)
    wanted = {"mac": "02:00:00:00:00:01", "mtu": 1400, "promisc": True, "allmulti": True, "txqlen": 0, "up": True}
    namespace.link("v0").set(**wanted)
    namespace.link("v0").expect(**wanted)
    assert namespace.journal.undo() == []
    assert v0(host) == before


def test_a_device_that_must_be_down_for_another_mac_goes_down_for_it() -> None:
    """No kind of link that can be made here is like that, some network cards are."""
    sent: list[Message] = []

    def outcomes(*messages: Message) -> list[Any]:
        return [NetlinkError(errno.EBUSY, "") for _ in messages]

    def request(*messages: Message) -> list[Any]:
        sent.extend(messages)
        return []

    netns: Any = SimpleNamespace(netlink=SimpleNamespace(outcomes=outcomes, request=request))
    Link(netns, LinkState(7, "nic0"))._apply({"mac": "02:00:00:00:00:01"})
    down, mac, up = sent
    assert (down.fields["flags"], down.fields["change"]) == (0, 1)
    assert mac.attributes == [("IFLA_ADDRESS", "02:00:00:00:00:01")]
    assert (up.fields["flags"], up.fields["change"]) == (1, 1)


def test_the_peer_of_a_cable_is_found_by_its_index(namespace: Namespace) -> None:
    assert namespace.links.peer(namespace.link("v0")).name == "v1"
    assert namespace.links.find_peer(namespace.link("lo")) is None


class Reluctant:
    """Does what it is given, and says that it is done only when it is told to: as the kernel with a link's remains."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def __call__(self, work: Callable[[], object]) -> Future[object]:
        def reluctantly() -> object:
            result = work()
            assert self.may_end.wait(60)
            return result

        return BackgroundThreads(1)(reluctantly)


def delete(namespace: Namespace, name: str, finish: scheduling.BackgroundRunner) -> bool:
    """As a server does."""

    def do() -> bool:
        scheduling.set_background_runner(finish)
        return deletion.delete(namespace, name)

    return copy_context().run(do)


def test_nobody_waits_for_the_remains_of_a_link(host: Host, namespace: Namespace) -> None:
    finish = Reluctant()
    assert delete(namespace, "v0", finish)
    assert [link["ifname"] for link in host.json("ip -j link")] == ["lo"]
    host.run("ip link add v0 type veth peer name v1")
    assert delete(namespace, "v0", finish)
    finish.may_end.set()


def test_a_link_that_is_gone_already_is_not_waited_for(namespace: Namespace) -> None:
    assert not delete(namespace, "v2", BackgroundThreads(1))


def test_what_the_kernel_says_to_a_deletion_is_heard(namespace: Namespace) -> None:
    with pytest.raises(CniError, match='cannot delete link "lo": operation not'):
        delete(namespace, "lo", BackgroundThreads(1))


def test_a_link_that_somebody_else_deletes_at_the_same_time_is_gone(host: Host, namespace: Namespace) -> None:
    def finish(work: Callable[[], object]) -> Future[object]:
        host.run("ip link del v0")
        deleting = BackgroundThreads(1)(work)
        assert isinstance(deleting.exception(60), NetlinkError)
        return deleting

    assert not delete(namespace, "v0", finish)
