"""Sysctls of a namespace, through a private instance of procfs or through /proc."""

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
    """Use a private instance, and the shared one."""
    instance = procfs._PerThread()
    instance.unsupported = request.param == "shared"
    monkeypatch.setattr(procfs, "_per_thread", instance)
    yield
    assert (instance.instance is not None) == (request.param == "own")


@pytest.mark.usefixtures("_instance")
def test_sysctls_are_those_of_the_handles_namespace(host: Host, tmp_path: Path) -> None:
    others = [Host(tmp_path / f"{number}") for number in range(40)]  # more than one instance is used for
    for number, other in enumerate(others):
        sysctl.ensure(other.netns, {"ipv4/ip_default_ttl": str(100 + number)})
    assert [other.run("sysctl -n net.ipv4.ip_default_ttl") for other in others] == [f"{100 + n}\n" for n in range(40)]
    assert sysctl.read(host.netns, "ipv4/ip_default_ttl") == "64"
    for other in others:
        other.close()


@pytest.mark.usefixtures("_instance")
def test_no_descriptor_stays_open(host: Host) -> None:
    with host.netns.enter():
        os.close(settings_directory("ipv4"))
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one list
        for _ in range(100):
            os.close(settings_directory("ipv6"))
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("missing", ["fsopen", "fsmount"])
def test_shared_instance_is_used_if_no_private_one_can_be_mounted(
    host: Host, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Examples are root of a user namespace, a seccomp filter, and an old C library."""

    library = procfs.c_library()

    class Library:
        def __getattr__(self, name: str) -> object:
            if name == missing == "fsopen":
                raise AttributeError(name)
            return refuse if name == missing else getattr(library, name)

    def refuse(*_: object) -> int:
        ctypes.set_errno(1)
        return -1

    with host.netns.enter():
        monkeypatch.setattr(procfs, "_per_thread", procfs._PerThread())
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with monkeypatch.context() as patched:
            patched.setattr(procfs, "c_library", Library)
            descriptor = settings_directory("ipv4")
        assert "ip_forward" in os.listdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH208
        os.close(descriptor)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
