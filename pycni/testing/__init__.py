"""The test kit for plugins: throwaway network namespaces, a runner for one plugin, and fault injection.

pycni installs it as a pytest plugin. Its fixtures are

    host            a throwaway Host; the test runs in its network namespace
    container       a Container on that host
    containers      three of them
    through_server  plugins are called through launcher and resident server, not in the process of the test

    from pycni.testing import Container, PluginRunner, check_lifecycle, fail_at_every_change

    def test_lifecycle(container: Container) -> None:
        bridge = PluginRunner("bridge", container).add()
        check_lifecycle(PluginRunner("mtu", container, mtu=1400, prevResult=bridge))

    def test_failed_add_is_rolled_back(container: Container) -> None:
        assert fail_at_every_change(lambda: PluginRunner("bridge", container, bridge="br0")) > 0

Tests need root, or a user namespace: `unshare -Urnm pytest`.

PluginRunner            calls one plugin for one attachment
check_lifecycle         ADD, CHECK and DEL leave nothing behind
fail_at_every_change    an ADD that fails at any change is rolled back
kill_at_every_change    GC or DEL cleans up after an ADD that was killed at any change
Host, Container         network namespaces
run_whoami              a network service that answers with its name and the address of its client
query_whoami            the answer of such a service
wait_for                wait until a condition holds
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
