"""host-device with network cards that belong to the test; scripts/guest has some."""

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

MACS = ("02:63:6e:69:00:00", "02:63:6e:69:00:01")  # set by scripts/guest
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.1"}],
}


class Machine(Host):
    """The machine itself as the host: sysfs shows only cards in the network namespace that mounted it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._netns = NetnsHandle(OWN, Journal())

    def name_of(self, mac: str) -> str | None:
        return next((each["ifname"] for each in self.json("ip -j link") if each["address"] == mac), None)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the card nic0, which is up and has addresses and routes.

    It is connected to 10.1.0.1 and fd00:1::1.
    """
    with Path("/run/pycni-cards.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # there is only one pair of cards
        made = Machine(tmp_path / "state")
        wait_for(
            lambda: all(made.name_of(mac) for mac in MACS), "the return of the cards from the previous test", seconds=60
        )
        for number, mac in enumerate(MACS):
            made.run(f"ip link set {made.name_of(mac)} down && ip link set {made.name_of(mac)} alias ''")
            made.run(f"ip addr flush dev {made.name_of(mac)} && ip link set {made.name_of(mac)} name nic{number}")
        made.run("sysctl -q net.ipv6.conf.nic0.accept_dad=0")
        made.run(
            "ip addr add 192.0.2.7/28 dev nic0 && ip addr add 2001:db8::7/64 dev nic0 nodad && ip link set nic0 up"
        )
        made.run("ip route add 203.0.113.0/24 via 192.0.2.1 && ip -6 route add 2001:db8:9::/64 via 2001:db8::1")
        remote = Container(made)
        made.run(f"ip link set nic1 netns {remote.path}")
        remote.run("ip addr add 10.1.0.1/24 dev nic1 && ip addr add fd00:1::1/64 dev nic1 nodad && ip link set nic1 up")
        yield made
        remote.close()
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


def card(container: Container, *, runner_class: type[PluginRunner] = PluginRunner, **config: Any) -> PluginRunner:
    state = str(container.host.state / "devices")
    selector = {} if config.keys() & {"kernelpath", "pciBusID", "hwaddr", "runtimeConfig"} else {"device": "nic0"}
    return runner_class("host-device", container, **{"ipam": DUAL, "dataDir": state, **selector, **config})


def is_restored(machine: Machine) -> bool:
    if machine.name_of(MACS[0]) != "nic0":
        return False
    shown = machine.run("ip addr show nic0 && ip route && ip -6 route")
    wanted = ("192.0.2.7/28", "2001:db8::7/64", ",UP", "203.0.113.0/24 via", "2001:db8:9::/64 via")
    return all(text in shown for text in wanted) and "alias" not in shown


@pytest.mark.parametrize("selector", SELECTORS)
def test_card_moves_into_the_container_and_is_restored_on_the_host(
    machine: Machine, container: Container, selector: str
) -> None:
    runner = card(container, **SELECTORS[selector]())
    runner.status()
    result = runner.add()
    assert result["interfaces"] == [{"name": "eth0", "mac": MACS[0], "sandbox": container.path}]
    assert machine.name_of(MACS[0]) is None
    assert container.pings("10.1.0.1", seconds=5)
    assert container.pings("fd00:1::1", seconds=5)
    runner.check()
    runner.status()
    runner.delete()
    assert is_restored(machine)
    runner.delete()


@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("others", ["", "ip link add eth0 type dummy"])
def test_card_is_restored_after_the_kernel_moved_it_back(
    machine: Machine, container: Container, verb: str, others: str
) -> None:
    """The kernel moves the card when the namespace is gone, before or after DEL.

    Its name is the container's or a new one.
    """
    runner = card(container)
    runner.add()
    machine.run(others)
    container.close()
    runner.netns = ""
    if verb == "GC":
        wait_for(lambda: machine.name_of(MACS[0]), "the card", seconds=60)
        runner.gc()
    else:
        runner.delete()
        if not is_restored(machine):  # the kernel moved it after DEL
            wait_for(lambda: machine.name_of(MACS[0]), "the card", seconds=60)
            runner.gc()
    if others:
        machine.run("ip link del eth0")
    assert is_restored(machine)
    assert not list(machine.state.glob("networks/test/10*"))
    assert not list(machine.state.glob("devices/*"))


def test_add_check_and_del_leave_nothing_behind(container: Container) -> None:
    check_lifecycle(card(container))


def test_failed_add_leaves_nothing_behind(container: Container) -> None:
    assert fail_at_every_change(lambda: card(container)) >= 4


@pytest.mark.exhaustive
def test_del_or_gc_cleans_up_after_a_killed_add(container: Container) -> None:
    assert kill_at_every_change(lambda: card(container)) >= 4


@pytest.mark.parametrize("selector", ["device", "pciBusID"])
def test_both_plugins_check_and_delete_adds_of_the_other(
    machine: Machine, container: Container, go_runner: type[PluginRunner], selector: str
) -> None:
    config = {**SELECTORS[selector](), "cniVersion": "1.0.0"}
    by_go, by_pycni = card(container, runner_class=go_runner, **config), card(container, **config)
    inside, host = of_namespace(container), of_host(machine)
    by_go.result = by_pycni.add()
    assert container.pings("10.1.0.1", seconds=5)
    by_go.check()
    by_go.delete()
    assert machine.name_of(MACS[0]) == "nic0"
    card(container).gc()
    assert of_host(machine) == host
    by_pycni.result = by_go.add()
    by_pycni.check()
    by_pycni.delete()
    assert of_namespace(container) == inside
    assert machine.name_of(MACS[0]) == "nic0"


@pytest.mark.usefixtures("through_server")
def test_card_is_moved_and_restored_by_the_server(machine: Machine, container: Container) -> None:
    runner = card(container, pciBusID=pci_address())
    runner.add()
    assert container.pings("10.1.0.1", seconds=5)
    runner.check()
    runner.netns = ""
    runner.delete()
    assert is_restored(machine)
    runner.delete()
