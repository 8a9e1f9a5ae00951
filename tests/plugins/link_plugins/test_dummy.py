"""dummy: a link that holds addresses."""

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, PluginRunner


@pytest.mark.needs_kernel("dummy")
def test_addresses_are_reachable_in_the_container(container: Container) -> None:
    container.run("ip link set lo up")
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.2/32"}, {"address": "fd00:1::2/128"}]}
    runner = PluginRunner("dummy", container, ipam=ipam)
    runner.add()
    assert container.pings("10.1.0.2")
    assert container.pings("fd00:1::2")
    runner.check()


def test_ipam_is_required(container: Container) -> None:
    runner = PluginRunner("dummy", container)
    with pytest.raises(CniError, match="dummy interface requires an IPAM configuration") as caught:
        runner.add()
    assert caught.value.code == 7
    runner.delete()
