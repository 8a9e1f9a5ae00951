"""The test kit finds what it is there to find: plugins that leak are caught."""

from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.sdk import Attachment, NetConf, Network, Plugin, Result, registry
from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change


class Clean(Plugin[NetConf]):
    """Makes two links on the host, by the book."""

    def add(self, cni: Attachment[NetConf]) -> Result:
        host, container = cni.host, cni.container
        link, _ = host.links.create_veth(cni.host_ifname, peer=cni.ifname, peer_in=container, alias=cni.owner.label)
        link.set(up=True)
        return Result()

    def check(self, cni: Attachment[NetConf]) -> None:
        cni.host.link(cni.host_ifname).expect(up=True)

    def delete(self, cni: Attachment[NetConf]) -> None:
        cni.delete_veth()


class LeavesTheLink(Clean):
    def delete(self, cni: Attachment[NetConf]) -> None:
        """Forgets."""


class LeavesAFile(Clean):
    def add(self, cni: Attachment[NetConf]) -> Result:
        path = Path(cni.config.dns.domain)
        path.mkdir(parents=True, exist_ok=True)
        cni.journal.change("write it down", (path / "kept").touch)  # without an undo
        return super().add(cni)


class NeedsPrevResult(Clean):
    def delete(self, cni: Attachment[NetConf]) -> None:
        if cni.required_prev_result:
            super().delete(cni)


class CheckFails(Clean):
    def check(self, cni: Attachment[NetConf]) -> None:
        raise CniError(f"{cni.ifname} is not as it was")


class NoGarbageCollection(Clean):
    def gc(self, cni: Network[NetConf]) -> None:
        """Forgets."""


@pytest.fixture
def runtime_of(container: Container, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A runtime for a plugin class that is registered for this test alone."""

    def make(plugin: type[Plugin[NetConf]], **config: Any) -> PluginRunner:
        monkeypatch.setattr(registry, "load", lambda _name: plugin)
        return PluginRunner("throwaway", container, **config)

    return make


def test_a_clean_plugin_passes(runtime_of: Any) -> None:
    check_lifecycle(runtime_of(Clean))
    assert fail_at_every_change(lambda: runtime_of(Clean)) == 2
    assert kill_at_every_change(lambda: runtime_of(Clean)) == 2


def test_a_link_that_stays_is_found(runtime_of: Any) -> None:
    with pytest.raises(AssertionError, match="DEL left .*veth"):
        check_lifecycle(runtime_of(LeavesTheLink))


def test_a_change_that_stays_after_a_failure_is_found(runtime_of: Any, container: Container) -> None:
    place = str(container.host.state / "notes")
    with pytest.raises(AssertionError, match="file notes/kept"):
        fail_at_every_change(lambda: _fresh(runtime_of(LeavesAFile, dns={"domain": place})))


def _fresh(runtime: PluginRunner) -> PluginRunner:
    kept = runtime.container.host.state / "notes" / "kept"
    kept.unlink(missing_ok=True)
    return runtime


def test_a_delete_that_needs_memory_is_found(runtime_of: Any) -> None:
    with pytest.raises(CniError, match="Required prevResult missing"):
        check_lifecycle(runtime_of(NeedsPrevResult))


def test_a_check_that_fails_is_found(runtime_of: Any) -> None:
    with pytest.raises(CniError, match="eth0 is not as it was"):
        check_lifecycle(runtime_of(CheckFails))


def test_a_missing_garbage_collection_is_found(runtime_of: Any) -> None:
    with pytest.raises(AssertionError, match="an ADD that ended at change 1 left"):
        kill_at_every_change(lambda: runtime_of(NoGarbageCollection))


def test_the_hosts_own_network_is_out_of_reach(container: Container) -> None:
    """What a test sees is its throwaway host: nothing but `lo`."""
    assert [link["ifname"] for link in container.host.json("ip -j link show")] == ["lo"]
    assert [link["ifname"] for link in container.json("ip -j link show")] == ["lo"]
