"""host-local: the lifecycle and failure tests that every plugin must pass."""

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

DUAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}


def test_add_check_and_del_leave_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("host-local", container, ipam=DUAL))


def test_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: PluginRunner("host-local", container, ipam=DUAL)) == 1


@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(container: Container) -> None:
    assert kill_at_every_change(lambda: PluginRunner("host-local", container, ipam=DUAL)) == 1
