"""The test kit detects plugins that leave something behind."""

from pathlib import Path
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.sdk import Attachment, NetConf, Network, Plugin, Result, registry
from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change


class Clean(Plugin[NetConf]):
    """Creates a veth pair and deletes it correctly."""

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
        """Delete nothing."""


class LeavesAFile(Clean):
    def add(self, cni: Attachment[NetConf]) -> Result:
        path = Path(cni.config.dns.domain)
        path.mkdir(parents=True, exist_ok=True)
        cni.journal.change("create a file", (path / "kept").touch)  # without an undo
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
        """Delete nothing."""


@pytest.fixture
def runner_of(container: Container, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that creates a runner for a plugin class, which is registered for this test only."""

    def make(plugin: type[Plugin[NetConf]], **config: Any) -> PluginRunner:
        monkeypatch.setattr(registry, "load", lambda _name: plugin)
        return PluginRunner("throwaway", container, **config)

    return make


def test_correct_plugin_passes(runner_of: Any) -> None:
    check_lifecycle(runner_of(Clean))
    assert fail_at_every_change(lambda: runner_of(Clean)) == 2
    assert kill_at_every_change(lambda: runner_of(Clean)) == 2


def test_link_left_by_del_is_detected(runner_of: Any) -> None:
    with pytest.raises(AssertionError, match="DEL left .*veth"):
        check_lifecycle(runner_of(LeavesTheLink))


def test_change_left_by_a_failed_add_is_detected(runner_of: Any, container: Container) -> None:
    directory = str(container.host.state / "notes")
    with pytest.raises(AssertionError, match="file notes/kept"):
        fail_at_every_change(lambda: _without_file(runner_of(LeavesAFile, dns={"domain": directory})))


def _without_file(runner: PluginRunner) -> PluginRunner:
    kept = runner.container.host.state / "notes" / "kept"
    kept.unlink(missing_ok=True)
    return runner


def test_del_that_requires_prev_result_is_detected(runner_of: Any) -> None:
    with pytest.raises(CniError, match="Required prevResult missing"):
        check_lifecycle(runner_of(NeedsPrevResult))


def test_failing_check_is_detected(runner_of: Any) -> None:
    with pytest.raises(CniError, match="eth0 is not as it was"):
        check_lifecycle(runner_of(CheckFails))


def test_missing_gc_is_detected(runner_of: Any) -> None:
    with pytest.raises(AssertionError, match="an ADD that ended at change 1 left"):
        kill_at_every_change(lambda: runner_of(NoGarbageCollection))


def test_test_host_is_isolated_from_the_machine(container: Container) -> None:
    """It has no links but lo."""
    assert [link["ifname"] for link in container.host.json("ip -j link show")] == ["lo"]
    assert [link["ifname"] for link in container.json("ip -j link show")] == ["lo"]
