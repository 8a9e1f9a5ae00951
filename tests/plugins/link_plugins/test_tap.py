"""tap: owner, group and queues, bridge ports, and SELinux contexts."""

import fcntl
import grp
import os
import pwd
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for

CreateRunner = Callable[..., PluginRunner]
SET_INTERFACE, TAP, NO_PACKET_INFORMATION, MULTI_QUEUE = 0x400454CA, 0x2, 0x1000, 0x100


@contextmanager
def opened(container: Container, *, queues: int = 1, name: str = "eth0") -> Iterator[list[int]]:
    """Open the tap `queues` times, as a virtual machine does."""
    flags = TAP | NO_PACKET_INFORMATION | (MULTI_QUEUE if queues > 1 else 0)
    descriptors: list[int] = []
    try:
        with container.netns.enter():
            for _ in range(queues):
                descriptors.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
                fcntl.ioctl(descriptors[-1], SET_INTERFACE, struct.pack("=16sH22x", name.encode(), flags))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def link(container: Container, name: str = "eth0") -> dict[str, Any]:
    (found,) = container.json(f"ip -j -d link show dev {name}")
    return dict(found)


def link_data(container: Container) -> dict[str, Any]:
    return dict(link(container)["linkinfo"]["info_data"])


def user_name(number: int) -> str | int:
    """Return the name of a user as `ip` prints it."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return number


def group_name(number: int) -> str | int:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return number


OWNED = {"owner": 1000, "group": 2000}
OWNED_BY_LARGEST_IDS = {"owner": (1 << 32) - 2, "group": 1 << 31}


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize("owned", [{}, {"owner": 0}, {"group": 2000}, OWNED, OWNED_BY_LARGEST_IDS], ids=str)
@pytest.mark.parametrize("queues", [{}, {"multiQueue": True}], ids=str)
def test_owner_group_queues_mac_and_mtu_can_be_combined(
    attachment: CreateRunner, container: Container, owned: dict[str, int], queues: dict[str, bool]
) -> None:
    runner = attachment("tap", **owned, **queues, mtu=1300, mac="02:00:00:00:00:01")
    runner.add()
    found = link_data(container)
    assert found["type"] == "tap"
    assert (found["pi"], found["multi_queue"], found["persist"]) == (False, bool(queues), True)
    assert found.get("user") == (user_name(owned["owner"]) if "owner" in owned else None)
    assert found.get("group") == (group_name(owned["group"]) if "group" in owned else None)
    assert (link(container)["mtu"], link(container)["address"]) == (1300, "02:00:00:00:00:01")
    runner.check()


def test_tap_is_up_and_has_carrier_only_while_it_is_open(attachment: CreateRunner, container: Container) -> None:
    attachment("tap").add()
    # The kernel reports it within a second.
    wait_for(lambda: {"UP", "NO-CARRIER"} <= set(link(container)["flags"]), "a link that is up without carrier")
    with opened(container) as (descriptor,):
        wait_for(lambda: "LOWER_UP" in link(container)["flags"], "the carrier")
        container.run("ping -c1 -W1 10.1.0.9", check=False)

        def receives_arp_request() -> bool:
            frame = os.read(descriptor, 2048)
            return frame[12:14] == b"\x08\x06" and frame[38:42] == bytes([10, 1, 0, 9])

        wait_for(lambda: _is_true(receives_arp_request), "an ARP request in the tap")
    wait_for(lambda: "NO-CARRIER" in link(container)["flags"], "the end of the carrier")


def _is_true(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except BlockingIOError:
        return False


def test_multi_queue_tap_can_be_opened_several_times(attachment: CreateRunner, container: Container) -> None:
    attachment("tap", multiQueue=True).add()
    with opened(container, queues=3):
        assert link_data(container)["numqueues"] == 3


def test_tap_can_be_a_port_of_a_bridge_in_the_container(attachment: CreateRunner, container: Container) -> None:
    container.run("ip link add br0 type bridge && ip link set br0 up")
    runner = attachment("tap", bridge="br0", ipam={})
    runner.add()
    assert link(container)["master"] == "br0"
    runner.check()
    container.run("ip link set eth0 nomaster")
    with pytest.raises(CniError, match="eth0 should have master"):
        runner.check()
    runner.delete()
    assert "br0" in container.run("ip -br link")


def test_error_names_a_missing_bridge_and_no_tap_is_left(attachment: CreateRunner, container: Container) -> None:
    with pytest.raises(CniError, match='"br9" not found'):
        attachment("tap", bridge="br9").add()
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("ip tuntap add dev eth0 mode tap user 1000", "eth0 should have group 2000, but has None"),
        ("ip tuntap add dev eth0 mode tap group 2000", "eth0 should have user 1000, but has None"),
        ("ip tuntap add dev eth0 mode tap user 1000 group 2000 multi_queue", "should have multi_queue False"),
    ],
)
def test_check_fails_if_the_tap_was_replaced(
    attachment: CreateRunner, container: Container, replacement: str, message: str
) -> None:
    runner = attachment("tap", **OWNED, ipam={})
    runner.add()
    container.run(f"ip link del eth0 && {replacement} && ip link set eth0 up")
    with pytest.raises(CniError, match=message):
        runner.check()


@pytest.mark.parametrize(
    "config", [{"owner": -1}, {"group": (1 << 32) - 1}, {"multiQueue": "yes"}, {"mtu": -5}, {"mtu": 1 << 32}], ids=str
)
def test_error_for_an_invalid_configuration_names_the_option(attachment: CreateRunner, config: dict[str, Any]) -> None:
    (key,) = config
    with pytest.raises(CniError, match=f"{key}: ") as caught:
        attachment("tap", **config).add()
    assert caught.value.code == 7


def test_no_tap_is_left_if_the_kernel_refuses_the_mtu(attachment: CreateRunner, container: Container) -> None:
    with pytest.raises(CniError, match="cannot configure the new link eth0: invalid argument"):
        attachment("tap", mtu=1 << 20).add()
    assert "eth0" not in container.run("ip -br link")


def test_selinux_context_is_refused_without_selinux(
    attachment: CreateRunner, container: Container, kernel_has: Callable[[str], bool]
) -> None:
    if kernel_has("selinux"):
        pytest.skip("needs a kernel without SELinux")
    with pytest.raises(CniError, match='cannot use the SELinux context "system_u:system_r:svirt_t:s0"'):
        attachment("tap", selinuxContext="system_u:system_r:svirt_t:s0").add()
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.needs_kernel("selinux")
@pytest.mark.parametrize("options", [{}, {**OWNED, "multiQueue": True}], ids=str)
def test_tap_with_selinux_context_is_created(
    attachment: CreateRunner, container: Container, options: dict[str, Any]
) -> None:
    runner = attachment("tap", selinuxContext="system_u:system_r:svirt_t:s0", mtu=1300, **options)
    runner.add()
    assert link(container)["mtu"] == 1300
    assert link_data(container)["multi_queue"] == bool(options)
    runner.check()
    runner.delete()


@pytest.mark.direct
def test_status_fails_if_taps_cannot_be_created(
    host: Host, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    PluginRunner("tap", container).status()
    monkeypatch.setattr("pycni.kernel.link.taps._TUN", host.state / "nothing")
    with pytest.raises(CniError, match="no taps can be made: .*no such file") as caught:
        PluginRunner("tap", container).status()
    assert caught.value.code == 50
