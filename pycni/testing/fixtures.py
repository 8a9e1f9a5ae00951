"""The fixtures of the pytest plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.kernel.door import OWN, Door
from pycni.kernel.journal import Journal
from pycni.testing import calls
from pycni.testing.world import Container, Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A throwaway host; the test itself, and every process it starts, is in its namespace."""
    before = Door(OWN, Journal())
    try:
        made = Host(tmp_path / "state")
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    made.door.enter_for_good()
    try:
        yield made
    finally:
        before.enter_for_good()
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
    if not calls.LAUNCHER.exists():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    with calls.served():
        yield
