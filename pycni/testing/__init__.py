"""The test kit: throwaway namespaces, a miniature runtime, and the lives that every plugin must survive.

Installed, it is a pytest plugin: tests ask for the fixtures `host` and `container`.

    from pycni.testing import Container, Runtime, fail_at_every_change, live_a_life

    def test_it_leaves_nothing_behind(container: Container) -> None:
        live_a_life(Runtime("mtu", container, mtu=1400, prevResult=Runtime("bridge", container).add()))

Everything happens in namespaces of the test's own, so it needs root, or `unshare -Urnm pytest`.
"""

from pycni.testing.lives import die_at_every_change, fail_at_every_change, live_a_life
from pycni.testing.runtime import Runtime
from pycni.testing.traffic import asked, serving
from pycni.testing.world import Container, Host, wait_for

__all__ = [
    "Container",
    "Host",
    "Runtime",
    "asked",
    "die_at_every_change",
    "fail_at_every_change",
    "live_a_life",
    "serving",
    "wait_for",
]
