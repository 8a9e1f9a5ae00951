"""Namespaces held open."""

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
def test_what_is_no_network_namespace_is_refused_by_name(path: str) -> None:
    with pytest.raises(CniError, match="failed to open netns") as caught:
        NetnsHandle(path, Journal())
    assert caught.value.code == 8
    if path:
        assert path in caught.value.msg


def test_entering_moves_this_thread_alone_and_only_for_a_while(host: Host, container: Container) -> None:
    def here() -> int:
        return Path(OWN).stat().st_ino

    elsewhere: list[int] = []
    entered, looked = threading.Event(), threading.Event()

    def other() -> None:
        entered.wait()
        elsewhere.append(here())
        looked.set()

    thread = threading.Thread(target=other)
    thread.start()
    with container.netns.entered():
        assert here() == container.netns.identity[1]
        entered.set()
        looked.wait()
    thread.join()
    assert here() == host.netns.identity[1]
    assert elsewhere == [host.netns.identity[1]]


def test_an_exception_inside_leads_back_out(container: Container) -> None:
    before = Path(OWN).stat().st_ino
    with pytest.raises(RuntimeError), container.netns.entered():
        raise RuntimeError
    assert Path(OWN).stat().st_ino == before


def test_the_own_namespace_is_known_by_any_of_its_names(host: Host, container: Container) -> None:
    assert is_own_namespace(OWN)
    assert is_own_namespace(host.path)
    assert not is_own_namespace(container.path)
    assert not is_own_namespace("")
    assert not is_own_namespace("/nowhere")


def test_nothing_stays_open(container: Container) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(5):
        netns = NetnsHandle(container.path, Journal())
        assert find_state(netns, "lo")
        netns.close()
    assert descriptors() == before


def test_a_namespace_has_an_incarnation_of_its_own() -> None:
    first, second = Netns(), Netns()
    again = NetnsHandle(first.path, Journal())
    assert first.netns.cookie == again.cookie
    assert first.netns.cookie != second.netns.cookie
    for one in (first, second, again):
        one.close()
