"""host-device with network cards, as only a machine has them that has some to spare: the guest."""

import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.testing import (
    Container,
    Host,
    PluginRunner,
    check_lifecycle,
    fail_at_every_change,
    kill_at_every_change,
    wait_for,
)
from pycni.testing.snapshot import of_host, of_namespace

pytestmark = pytest.mark.needs_kernel("cards")

MACS = ("02:63:6e:69:00:00", "02:63:6e:69:00:01")  # as scripts/guest gives them
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}],
}


class Machine(Host):
    """The machine itself, since its sysfs shows the cards of its own namespace alone."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._netns = NetnsHandle(OWN, Journal())

    def named(self, mac: str) -> str | None:
        return next((each["ifname"] for each in self.json("ip -j link") if each["address"] == mac), None)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the card nic0, up, with addresses and routes; its wire leads to 10.1.0.1 and fd00:1::1."""
    with Path("/run/pycni-cards.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # there is one wire
        made = Machine(tmp_path / "state")
        wait_for(lambda: all(made.named(mac) for mac in MACS), "the cards of the test before", seconds=60)
        for number, mac in enumerate(MACS):
            made.run(f"ip link set {made.named(mac)} down && ip link set {made.named(mac)} alias ''")
            made.run(f"ip addr flush dev {made.named(mac)} && ip link set {made.named(mac)} name nic{number}")
        made.run("sysctl -q net.ipv6.conf.nic0.accept_dad=0")
        made.run(
            "ip addr add 192.0.2.7/28 dev nic0 && ip addr add 2001:db8::7/64 dev nic0 nodad && ip link set nic0 up"
        )
        made.run("ip route add 203.0.113.0/24 via 192.0.2.1 && ip -6 route add 2001:db8:9::/64 via 2001:db8::1")
        far = Container(made)
        made.run(f"ip link set nic1 netns {far.path}")
        far.run("ip addr add 10.1.0.1/24 dev nic1 && ip addr add fd00:1::1/64 dev nic1 nodad && ip link set nic1 up")
        yield made
        far.close()
        made.close()


@pytest.fixture
def container(machine: Machine) -> Iterator[Container]:
    made = Container(machine)
    yield made
    made.close()


def pci_address() -> str:
    (device,) = Path("/sys/class/net").glob("nic0/device")
    return device.resolve().parent.name


def kernel_path() -> str:
    return str(Path("/sys/class/net/nic0/device").resolve())


SELECTORS: dict[str, Callable[[], dict[str, Any]]] = {
    "device": lambda: {"device": "nic0"},
    "hwaddr": lambda: {"hwaddr": MACS[0]},
    "kernelpath": lambda: {"kernelpath": kernel_path()},
    "pciBusID": lambda: {"pciBusID": pci_address()},
    "deviceID": lambda: {"runtimeConfig": {"deviceID": pci_address()}},
}


def card(container: Container, *, by: type[PluginRunner] = PluginRunner, **config: Any) -> PluginRunner:
    state = str(container.host.state / "devices")
    selector = {} if config.keys() & {"kernelpath", "pciBusID", "hwaddr", "runtimeConfig"} else {"device": "nic0"}
    return by("host-device", container, **{"ipam": DUAL, "dataDir": state, **selector, **config})


def is_at_home(machine: Machine) -> bool:
    if machine.named(MACS[0]) != "nic0":
        return False
    shown = machine.run("ip addr show nic0 && ip route && ip -6 route")
    wanted = ("192.0.2.7/28", "2001:db8::7/64", ",UP", "203.0.113.0/24 via", "2001:db8:9::/64 via")
    return all(text in shown for text in wanted) and "alias" not in shown


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_card_is_the_containers_and_comes_home_as_it_was(
    machine: Machine, container: Container, selector: str
) -> None:
    runtime = card(container, **SELECTORS[selector]())
    runtime.status()
    result = runtime.add()
    assert result["interfaces"] == [{"name": "eth0", "mac": MACS[0], "sandbox": container.path}]
    assert machine.named(MACS[0]) is None
    assert container.pings("10.1.0.1", seconds=5)
    assert container.pings("fd00:1::1", seconds=5)
    runtime.check()
    runtime.status()
    runtime.delete()
    assert is_at_home(machine)
    runtime.delete()


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("others", ["", "ip link add eth0 type dummy"])
def test_r11_the_kernel_sends_it_home_when_the_namespace_goes_and_it_is_as_it_was(
    machine: Machine, container: Container, verb: str, others: str
) -> None:
    """At once, or a moment after the DEL; under the container's name, or another if that is taken."""
    runtime = card(container)
    runtime.add()
    machine.run(others)
    container.close()
    runtime.netns = ""
    if verb == "GC":
        wait_for(lambda: machine.named(MACS[0]), "the card", seconds=60)
        runtime.gc()
    else:
        runtime.delete()
        if not is_at_home(machine):  # the kernel has taken its time
            wait_for(lambda: machine.named(MACS[0]), "the card", seconds=60)
            runtime.gc()
    if others:
        machine.run("ip link del eth0")
    assert is_at_home(machine)
    assert not list(machine.state.glob("networks/test/10*"))
    assert not list(machine.state.glob("devices/*"))


def test_it_leaves_nothing_behind(container: Container) -> None:
    check_lifecycle(card(container))


def test_a_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: card(container)) >= 4


@pytest.mark.exhaustive
def test_an_add_killed_half_way_is_cleaned_up(container: Container) -> None:
    assert kill_at_every_change(lambda: card(container)) >= 4


@pytest.mark.parametrize("selector", ["device", "pciBusID"])
def test_the_go_plugin_and_ours_take_over_from_each_other(
    machine: Machine, container: Container, go_runner: type[PluginRunner], selector: str
) -> None:
    config = {**SELECTORS[selector](), "cniVersion": "1.0.0"}
    theirs, ours = card(container, by=go_runner, **config), card(container, **config)
    inside, host = of_namespace(container), of_host(machine)
    theirs.result = ours.add()
    assert container.pings("10.1.0.1", seconds=5)
    theirs.check()
    theirs.delete()
    assert machine.named(MACS[0]) == "nic0"
    card(container).gc()
    assert of_host(machine) == host
    ours.result = theirs.add()
    ours.check()
    ours.delete()
    assert of_namespace(container) == inside
    assert machine.named(MACS[0]) == "nic0"


@pytest.mark.usefixtures("through_server")
def test_the_server_does_the_same(machine: Machine, container: Container) -> None:
    runtime = card(container, pciBusID=pci_address())
    runtime.add()
    assert container.pings("10.1.0.1", seconds=5)
    runtime.check()
    runtime.netns = ""
    runtime.delete()
    assert is_at_home(machine)
    runtime.delete()
