"""Throwaway namespaces: a host that the test runs in, and containers beside it."""

import itertools
import json
import os
import subprocess  # noqa: TID251 - tests look at the world with the tools that people use
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle, unshare_network

_numbers = itertools.count(1)
_STANDSTILL = 1.0  # seconds: no look at a condition takes that long


class Netns:
    """A network namespace that lives as long as this object is open; no file system is touched."""

    def __init__(self) -> None:
        before = NetnsHandle(OWN, Journal())
        unshare_network()
        self._netns = NetnsHandle(OWN, Journal())
        before.enter_permanently()
        before.close()

    @property
    def path(self) -> str:
        """Its path for whoever may look into this process: what CNI_NETNS gets."""
        return f"/proc/{os.getpid()}/fd/{self._netns.fd}"

    @property
    def netns(self) -> NetnsHandle:
        """The way in."""
        return self._netns

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a shell command in it and return what it prints; a failing one is an AssertionError."""
        with self._netns.entered():
            return _run(command, check=check)

    def json(self, command: str) -> Any:
        """What a command prints as JSON, such as `ip -j addr`."""
        return json.loads(self.run(command) or "[]")

    def close(self) -> None:
        """Let go of it; the kernel removes it with all that is in it."""
        self._netns.close()


class Host(Netns):
    """The namespace that plugins take for the host, with `lo` up, and a directory for what plugins keep on disk."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.state = state
        self.run("ip link set lo up")


class Container(Netns):
    """The namespace of a container on a host, as fresh as a runtime makes it."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self.id = f"container-{os.getpid()}-{next(_numbers)}"

    def pings(self, address: str, *, seconds: int = 1) -> bool:
        """Whether an address answers within that time."""
        with self._netns.entered():
            done = subprocess.run(["ping", "-c1", f"-W{seconds}", address], capture_output=True, check=False)
        return done.returncode == 0


def _run(command: str, *, check: bool) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = 5.0) -> None:
    """Wait until the condition holds. AssertionError if it does not within that time.

    A machine that stands still for a while, as virtual ones do, has that not counted in full.
    """
    waited, before = 0.0, time.monotonic()
    while not condition():
        assert waited < seconds, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)
        now = time.monotonic()
        waited += min(now - before, _STANDSTILL)
        before = now
