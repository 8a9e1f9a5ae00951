"""host-local: whole lives and failures, as every plugin's."""

import pytest

from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change, kill_at_every_change

DUAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}


def test_it_leaves_nothing_behind(container: Container) -> None:
    check_lifecycle(PluginRunner("host-local", container, ipam=DUAL))


def test_a_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: PluginRunner("host-local", container, ipam=DUAL)) == 1


@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up_by_del_or_gc(container: Container) -> None:
    assert kill_at_every_change(lambda: PluginRunner("host-local", container, ipam=DUAL)) == 1
