"""The settings of a namespace, in an instance of procfs of our own or in the one at /proc."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.kernel.netns import procfs, sysctl
from pycni.kernel.netns.procfs import settings_directory
from pycni.testing import Host


@pytest.fixture(params=["own", "shared"])
def _instance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways."""
    fresh = procfs._Own()
    fresh.impossible = request.param == "shared"
    monkeypatch.setattr(procfs, "_own", fresh)
    yield
    assert (fresh.instance is not None) == (request.param == "own")


@pytest.mark.usefixtures("_instance")
def test_a_setting_is_that_of_the_doors_namespace(host: Host, tmp_path: Path) -> None:
    others = [Host(tmp_path / f"{number}") for number in range(40)]  # more than an instance is used for
    for number, other in enumerate(others):
        sysctl.ensure(other.netns, {"ipv4/ip_default_ttl": str(100 + number)})
    assert [other.run("sysctl -n net.ipv4.ip_default_ttl") for other in others] == [f"{100 + n}\n" for n in range(40)]
    assert sysctl.read(host.netns, "ipv4/ip_default_ttl") == "64"
    for other in others:
        other.close()


@pytest.mark.usefixtures("_instance")
def test_nothing_stays_open(host: Host) -> None:
    with host.netns.entered():
        os.close(settings_directory("ipv4"))
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one list
        for _ in range(100):
            os.close(settings_directory("ipv6"))
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("missing", ["fsopen", "fsmount"])
def test_where_there_can_be_no_instance_the_shared_one_is_used(
    host: Host, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """As for root of a user namespace, under a seccomp filter, or with an old C library."""

    library = procfs._libc()

    class Library:
        def __getattr__(self, name: str) -> object:
            if name == missing == "fsopen":
                raise AttributeError(name)
            return refuse if name == missing else getattr(library, name)

    def refuse(*_: object) -> int:
        ctypes.set_errno(1)
        return -1

    with host.netns.entered():
        monkeypatch.setattr(procfs, "_own", procfs._Own())
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with monkeypatch.context() as patched:
            patched.setattr(procfs, "_libc", Library)
            descriptor = settings_directory("ipv4")
        assert "ip_forward" in os.listdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH208
        os.close(descriptor)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
