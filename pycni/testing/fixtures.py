"""The fixtures of the pytest plugin; see pycni.testing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.testing import transport
from pycni.testing.topology import Container, Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a throwaway Host. The test and the processes that it starts run in its network namespace."""
    before = NetnsHandle(OWN, Journal())
    try:
        throwaway = Host(tmp_path / "state")
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    throwaway.netns.enter_permanently()
    try:
        yield throwaway
    finally:
        before.enter_permanently()
        before.close()
        throwaway.close()


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    """Yield a Container on the throwaway host."""
    throwaway = Container(host)
    yield throwaway
    throwaway.close()


@pytest.fixture
def containers(host: Host) -> Iterator[list[Container]]:
    """Yield three containers on the throwaway host."""
    throwaway = [Container(host) for _ in range(3)]
    yield throwaway
    for container in throwaway:
        container.close()


@pytest.fixture
def through_server() -> Iterator[None]:
    """Call plugins through launcher and resident server instead of in the process of the test."""
    if not transport.LAUNCHER.exists():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    with transport.through_server():
        yield
