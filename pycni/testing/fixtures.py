"""The fixtures of the pytest plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.testing import transport
from pycni.testing.topology import Container, Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A throwaway host; the test itself, and every process it starts, is in its namespace."""
    before = NetnsHandle(OWN, Journal())
    try:
        made = Host(tmp_path / "state")
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    made.netns.enter_permanently()
    try:
        yield made
    finally:
        before.enter_permanently()
        before.close()
        made.close()


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    """A container on the throwaway host."""
    made = Container(host)
    yield made
    made.close()


@pytest.fixture
def containers(host: Host) -> Iterator[list[Container]]:
    """Three containers on the throwaway host."""
    made = [Container(host) for _ in range(3)]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def through_server() -> Iterator[None]:
    """The test's runtimes call plugins through a resident server, by the launcher, instead of directly."""
    if not transport.LAUNCHER.exists():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    with transport.through_server():
        yield
