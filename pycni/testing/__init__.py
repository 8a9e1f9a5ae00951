"""The test kit: throwaway namespaces, a miniature runtime, and the lives that every plugin must survive.

Installed, it is a pytest plugin: tests ask for the fixtures `host` and `container`.

    from pycni.testing import Container, PluginRunner, fail_at_every_change, check_lifecycle

    def test_it_leaves_nothing_behind(container: Container) -> None:
        check_lifecycle(PluginRunner("mtu", container, mtu=1400, prevResult=PluginRunner("bridge", container).add()))

Everything happens in namespaces of the test's own, so it needs root, or `unshare -Urnm pytest`.
"""

from pycni.testing.lifecycle import check_lifecycle, fail_at_every_change, kill_at_every_change
from pycni.testing.plugin_runner import PluginRunner
from pycni.testing.topology import Container, Host, wait_for
from pycni.testing.traffic import query_whoami, run_whoami

__all__ = [
    "Container",
    "Host",
    "PluginRunner",
    "check_lifecycle",
    "fail_at_every_change",
    "kill_at_every_change",
    "query_whoami",
    "run_whoami",
    "wait_for",
]
