"""A LAN for the plugins that create one link in the container, and the configuration of each plugin for it."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycni.testing import Container, Host, PluginRunner, wait_for

ADDRESSES = [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}]
DEFAULTS = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
# The options that attach each plugin to the LAN. The host's link is named eth0, like the container's.
OPTIONS: dict[str, dict[str, Any]] = {
    "macvlan": {"master": "eth0"},
    "vlan": {"master": "eth0", "vlanId": 100},
    "ipvlan": {"master": "eth0"},
    "dummy": {},
    "tap": {},
}
KINDS = {"tap": "tun"}
LACKING = ("vlan", "ipvlan", "dummy")  # link kinds that some kernels lack


def _parameters(*plugins: str) -> list[Any]:
    return [
        pytest.param(plugin, marks=pytest.mark.needs_kernel(plugin) if plugin in LACKING else ()) for plugin in plugins
    ]


@pytest.fixture(params=_parameters(*OPTIONS))
def plugin(request: pytest.FixtureRequest) -> str:
    """Each plugin in turn."""
    return str(request.param)


@pytest.fixture(params=_parameters("macvlan", "vlan", "ipvlan"))
def plugin_with_master(request: pytest.FixtureRequest) -> str:
    """Each plugin whose link has a master, in turn."""
    return str(request.param)


@pytest.fixture
def kind_of() -> Callable[[str], str]:
    """Return a function that returns the kernel's name for the links of a plugin."""
    return lambda plugin: KINDS.get(plugin, plugin)


@pytest.fixture
def lan(host: Host) -> Iterator[Container]:
    """The LAN behind eth0 of the host: its router, 10.1.0.1 and fd00:1::1, untagged and in VLAN 100."""
    router = Container(host)
    host.run(f"ip link add eth0 mtu 1400 type veth peer name lan0 mtu 1400 netns {router.path}")
    router.run("ip addr add 10.1.0.1/24 dev lan0 && ip addr add fd00:1::1/64 dev lan0 nodad && ip link set lan0 up")
    host.run("ip link set eth0 up")
    wait_for(lambda: "state UP" in host.run("ip link show eth0"), "eth0")
    yield router
    router.close()


CreateRunner = Callable[..., PluginRunner]


@pytest.fixture
def attachment(lan: Container, container: Container) -> CreateRunner:
    """Return a function that creates a runner for a plugin on the LAN, with an address of each family."""

    def make(plugin: str, of: Container = container, **config: Any) -> PluginRunner:
        if plugin == "vlan" and "lan0.100" not in lan.run("ip -br link"):
            lan.run("ip link add link lan0 name lan0.100 type vlan id 100 && ip link set lan0.100 up")
            lan.run("ip addr flush dev lan0 && ip addr add 10.1.0.1/24 dev lan0.100")
            lan.run("ip addr add fd00:1::1/64 dev lan0.100 nodad")
        ipam = {"type": "static", "addresses": ADDRESSES, "routes": DEFAULTS}
        return PluginRunner(plugin, of, **{"ipam": ipam, **OPTIONS[plugin], **config})

    return make


@pytest.fixture
def sniffer(lan: Container) -> Iterator[socket.socket]:
    """A packet socket on the router's side of the LAN."""
    with lan.netns.enter():
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    frames.settimeout(0.05)
    with frames:
        yield frames
