"""Changing and deleting links."""

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
from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError
from pycni.server.background import BackgroundThreads
from pycni.testing import Host


@pytest.fixture
def namespace(host: Host) -> Iterator[Namespace]:
    """The host with a veth pair, v0 and v1."""
    host.run("ip link add v0 type veth peer name v1")
    namespace = Namespace.own(Journal())
    yield namespace
    namespace.close()


def v0(host: Host) -> dict[str, Any]:
    (link,) = host.json("ip -j link show v0")
    return {
        key: value for key, value in link.items() if key != "qdisc"
    }  # changes when the link is set up for the first time


def test_refused_change_changes_nothing(host: Host, namespace: Namespace) -> None:
    """The kernel sets the MAC before it validates the MTU."""
    before = v0(host)
    with pytest.raises(CniError, match="cannot set v0 mtu 10: invalid argument"), namespace.journal:
        namespace.link("v0").set(mac="02:00:00:00:00:01", mtu=10, promisc=True)
    assert v0(host) == before


def test_undo_restores_all_attributes(host: Host, namespace: Namespace) -> None:
    before = v0(host)
    wanted = {"mac": "02:00:00:00:00:01", "mtu": 1400, "promisc": True, "allmulti": True, "txqlen": 0, "up": True}
    namespace.link("v0").set(**wanted)
    namespace.link("v0").expect(**wanted)
    assert namespace.journal.undo() == []
    assert v0(host) == before


def test_failed_creation_keeps_the_link_that_has_the_name(host: Host, namespace: Namespace) -> None:
    """Another program may create a link with the name after the plugin has seen that it is free."""
    owner = Owner("net", "container", "v1")
    with pytest.raises(CniError, match="cannot configure the new link v1: file exists"), namespace.journal:
        namespace.links.create("v1", "macvlan", owner, master=namespace.link("v0"))
    assert {link["ifname"] for link in host.json("ip -j link show")} == {"lo", "v0", "v1"}


def test_failed_creation_of_a_veth_keeps_the_veth_of_an_earlier_add(host: Host, namespace: Namespace) -> None:
    host.run("ip link add v2 type veth peer name eth0")
    with pytest.raises(CniError, match="already exists"), namespace.journal:
        namespace.links.create_veth("v2", peer="eth0", peer_in=namespace)
    assert {link["ifname"] for link in host.json("ip -j link show")} == {"lo", "v0", "v1", "v2", "eth0"}


def test_veth_without_label_is_deleted(host: Host, namespace: Namespace) -> None:
    with pytest.raises(CniError, match="cannot create veth v2 with peer eth0"), namespace.journal:
        namespace.links.create_veth("v2", peer="eth0", peer_in=namespace, alias="x" * 300)
    assert {link["ifname"] for link in host.json("ip -j link show")} == {"lo", "v0", "v1"}


def test_mac_is_changed_while_the_link_is_down_if_required() -> None:
    """Some network cards require it. No link kind that can be created here does."""
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
    assert list(mac.attributes) == [("IFLA_ADDRESS", "02:00:00:00:00:01")]
    assert (up.fields["flags"], up.fields["change"]) == (1, 1)


def test_peer_of_a_veth_is_found_by_its_index(namespace: Namespace) -> None:
    assert namespace.links.peer(namespace.link("v0")).name == "v1"
    assert namespace.links.find_peer(namespace.link("lo")) is None


class PausedRunner:
    """Runs work in the background, and reports its end only when `may_end` is set.

    It imitates the kernel, which returns from a deletion some time after the link has disappeared.
    """

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def __call__(self, work: Callable[[], object]) -> Future[object]:
        def do() -> object:
            result = work()
            assert self.may_end.wait(60)
            return result

        return BackgroundThreads(1)(do)


def delete(namespace: Namespace, name: str, finish: scheduling.BackgroundRunner) -> bool:
    """Delete the link as a server does."""

    def do() -> bool:
        scheduling.set_background_runner(finish)
        return deletion.delete(namespace, name)

    return copy_context().run(do)


def test_delete_returns_when_the_link_has_disappeared(host: Host, namespace: Namespace) -> None:
    finish = PausedRunner()
    assert delete(namespace, "v0", finish)
    assert [link["ifname"] for link in host.json("ip -j link")] == ["lo"]
    host.run("ip link add v0 type veth peer name v1")
    assert delete(namespace, "v0", finish)
    finish.may_end.set()


def test_delete_of_a_missing_link_returns_false(namespace: Namespace) -> None:
    assert not delete(namespace, "v2", BackgroundThreads(1))


def test_delete_reports_the_error_of_the_kernel(namespace: Namespace) -> None:
    with pytest.raises(CniError, match='cannot delete link "lo": operation not'):
        delete(namespace, "lo", BackgroundThreads(1))


def test_delete_returns_false_if_another_process_deletes_the_link(host: Host, namespace: Namespace) -> None:
    def finish(work: Callable[[], object]) -> Future[object]:
        host.run("ip link del v0")
        deleting = BackgroundThreads(1)(work)
        assert isinstance(deleting.exception(60), NetlinkError)
        return deleting

    assert not delete(namespace, "v0", finish)
