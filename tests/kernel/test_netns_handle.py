"""Handles to network namespaces."""

import threading
from pathlib import Path

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.link.link_state import find_state
from pycni.kernel.netns.handle import OWN, NetnsHandle, is_own_namespace
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host
from pycni.testing.topology import Netns


@pytest.mark.parametrize("path", ["", "/nowhere", "/etc/hostname", "/proc/self/ns/pid", "/tmp", "a\0b"])
def test_error_names_a_path_that_is_no_network_namespace(path: str) -> None:
    with pytest.raises(CniError, match="failed to open netns") as caught:
        NetnsHandle(path, Journal())
    assert caught.value.code == 8
    if path:
        assert path in caught.value.msg


def test_entered_moves_only_this_thread_and_returns(host: Host, container: Container) -> None:
    def current_namespace() -> int:
        return Path(OWN).stat().st_ino

    namespaces_of_other: list[int] = []
    entered, recorded = threading.Event(), threading.Event()

    def other() -> None:
        entered.wait()
        namespaces_of_other.append(current_namespace())
        recorded.set()

    thread = threading.Thread(target=other)
    thread.start()
    with container.netns.enter():
        assert current_namespace() == container.netns.identity[1]
        entered.set()
        recorded.wait()
    thread.join()
    assert current_namespace() == host.netns.identity[1]
    assert namespaces_of_other == [host.netns.identity[1]]


def test_exception_inside_entered_returns_to_the_previous_namespace(container: Container) -> None:
    before = Path(OWN).stat().st_ino
    with pytest.raises(RuntimeError), container.netns.enter():
        raise RuntimeError
    assert Path(OWN).stat().st_ino == before


def test_own_namespace_is_recognized_by_any_path(host: Host, container: Container) -> None:
    assert is_own_namespace(OWN)
    assert is_own_namespace(host.path)
    assert not is_own_namespace(container.path)
    assert not is_own_namespace("")
    assert not is_own_namespace("/nowhere")


def test_close_closes_all_descriptors(container: Container) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(5):
        netns = NetnsHandle(container.path, Journal())
        assert find_state(netns, "lo")
        netns.close()
    assert descriptors() == before


def test_each_namespace_has_its_own_cookie() -> None:
    first, second = Netns(), Netns()
    again = NetnsHandle(first.path, Journal())
    assert first.netns.cookie == again.cookie
    assert first.netns.cookie != second.netns.cookie
    for one in (first, second, again):
        one.close()
