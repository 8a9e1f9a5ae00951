"""Throwaway network namespaces: a host that the test runs in, and containers on it."""

import itertools
import json
import os
import subprocess  # noqa: TID251 - tests use ip, nft and ping
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycni.kernel.journal import Journal
from pycni.kernel.namespace import Namespace
from pycni.kernel.netns.handle import OWN, NetnsHandle, unshare_network

_numbers = itertools.count(1)
_MAX_STEP = 1.0  # seconds that count between two looks at a condition; no look takes that long


class Netns:
    """A new network namespace. It exists as long as this object is open, and is not bound to a path in /run/netns."""

    def __init__(self) -> None:
        before = NetnsHandle(OWN, Journal())
        unshare_network()
        self._netns = NetnsHandle(OWN, Journal())
        before.enter_permanently()
        before.close()

    @property
    def path(self) -> str:
        """The path of the namespace, for CNI_NETNS: /proc/PID/fd/N of this process."""
        return f"/proc/{os.getpid()}/fd/{self._netns.fd}"

    @property
    def netns(self) -> NetnsHandle:
        """The handle of the namespace."""
        return self._netns

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a shell command in the namespace and return its stdout.

        Raises AssertionError with its stderr if it fails, unless `check` is false.
        """
        with self._netns.enter():
            return _run(command, check=check)

    def json(self, command: str) -> Any:
        """Run a command that prints JSON, such as `ip -j addr`, and return the decoded value."""
        return json.loads(self.run(command) or "[]")

    def close(self) -> None:
        """Close the namespace. The kernel removes it with everything in it."""
        self._netns.close()


class Host(Netns):
    """The network namespace that plugins see as the host, with `lo` up.

    `state` is a directory for the files of plugins, such as the reservations of host-local.
    """

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.state = state
        namespace = Namespace.at(self.path)
        try:
            namespace.link("lo").ensure(up=True)
        finally:
            namespace.close()


class Container(Netns):
    """The network namespace of a container on `host`, as a runtime creates it. `id` is its unique container id."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self.id = f"container-{os.getpid()}-{next(_numbers)}"

    def pings(self, address: str, *, seconds: int = 1) -> bool:
        """Return whether `address` answers a ping within that many seconds."""
        with self._netns.enter():
            done = subprocess.run(["ping", "-c1", f"-W{seconds}", address], capture_output=True, check=False)
        return done.returncode == 0


def _run(command: str, *, check: bool) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = 5.0) -> None:
    """Wait until `condition()` is true. Raise AssertionError with `what` if it is not within `seconds`.

    Time during which the whole machine stops, as virtual machines do, counts at most one second.

        wait_for(lambda: container.pings("10.1.0.1"), "an answer of the gateway")
    """
    waited, before = 0.0, time.monotonic()
    while not condition():
        assert waited < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
        now = time.monotonic()
        waited += min(now - before, _MAX_STEP)
        before = now
