"""tap: who may open it, and how; its bridge."""

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

Attached = Callable[..., PluginRunner]
SET_INTERFACE, TAP, NO_PACKET_INFORMATION, MULTI_QUEUE = 0x400454CA, 0x2, 0x1000, 0x100


@contextmanager
def opened(container: Container, *, queues: int = 1, name: str = "eth0") -> Iterator[list[int]]:
    """The tap as a virtual machine opens it."""
    flags = TAP | NO_PACKET_INFORMATION | (MULTI_QUEUE if queues > 1 else 0)
    descriptors: list[int] = []
    try:
        with container.netns.entered():
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


def data(container: Container) -> dict[str, Any]:
    return dict(link(container)["linkinfo"]["info_data"])


def user_name(number: int) -> str | int:
    """What `ip` makes of a user."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return number


def group_name(number: int) -> str | int:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return number


OWNED = {"owner": 1000, "group": 2000}
OWNED_BY_THE_LAST = {"owner": (1 << 32) - 2, "group": 1 << 31}


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize("owned", [{}, {"owner": 0}, {"group": 2000}, OWNED, OWNED_BY_THE_LAST], ids=str)
@pytest.mark.parametrize("queues", [{}, {"multiQueue": True}], ids=str)
def test_r19_owner_group_queues_mac_and_mtu_go_together(
    attachment: Attached, container: Container, owned: dict[str, int], queues: dict[str, bool]
) -> None:
    runtime = attachment("tap", **owned, **queues, mtu=1300, mac="02:00:00:00:00:01")
    runtime.add()
    made = data(container)
    assert made["type"] == "tap"
    assert (made["pi"], made["multi_queue"], made["persist"]) == (False, bool(queues), True)
    assert made.get("user") == (user_name(owned["owner"]) if "owner" in owned else None)
    assert made.get("group") == (group_name(owned["group"]) if "group" in owned else None)
    assert (link(container)["mtu"], link(container)["address"]) == (1300, "02:00:00:00:00:01")
    runtime.check()


def test_it_is_up_without_carrier_until_somebody_opens_it(attachment: Attached, container: Container) -> None:
    attachment("tap").add()
    # The kernel says so by and by, within a second.
    wait_for(lambda: {"UP", "NO-CARRIER"} <= set(link(container)["flags"]), "a link that is up without carrier")
    with opened(container) as (descriptor,):
        wait_for(lambda: "LOWER_UP" in link(container)["flags"], "the carrier")
        container.run("ping -c1 -W1 10.1.0.9", check=False)

        def asks() -> bool:
            frame = os.read(descriptor, 2048)
            return frame[12:14] == b"\x08\x06" and frame[38:42] == bytes([10, 1, 0, 9])

        wait_for(lambda: _quietly(asks), "an ARP request in the tap")
    wait_for(lambda: "NO-CARRIER" in link(container)["flags"], "the end of the carrier")


def _quietly(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except BlockingIOError:
        return False


def test_several_queues_are_opened_at_once(attachment: Attached, container: Container) -> None:
    attachment("tap", multiQueue=True).add()
    with opened(container, queues=3):
        assert data(container)["numqueues"] == 3


def test_it_may_be_a_port_of_a_bridge_in_the_container(attachment: Attached, container: Container) -> None:
    container.run("ip link add br0 type bridge && ip link set br0 up")
    runtime = attachment("tap", bridge="br0", ipam={})
    runtime.add()
    assert link(container)["master"] == "br0"
    runtime.check()
    container.run("ip link set eth0 nomaster")
    with pytest.raises(CniError, match="eth0 should have master"):
        runtime.check()
    runtime.delete()
    assert "br0" in container.run("ip -br link")


def test_a_bridge_that_is_not_there_is_named_and_no_tap_is_left(attachment: Attached, container: Container) -> None:
    with pytest.raises(CniError, match='"br9" not found'):
        attachment("tap", bridge="br9").add()
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("ip tuntap add dev eth0 mode tap user 1000", "eth0 should have group 2000, but has None"),
        ("ip tuntap add dev eth0 mode tap group 2000", "eth0 should have user 1000, but has None"),
        ("ip tuntap add dev eth0 mode tap user 1000 group 2000 multi_queue", "should have multi_queue False"),
    ],
)
def test_check_finds_another_tap(attachment: Attached, container: Container, damage: str, message: str) -> None:
    runtime = attachment("tap", **OWNED, ipam={})
    runtime.add()
    container.run(f"ip link del eth0 && {damage} && ip link set eth0 up")
    with pytest.raises(CniError, match=message):
        runtime.check()


@pytest.mark.parametrize(
    "config", [{"owner": -1}, {"group": (1 << 32) - 1}, {"multiQueue": "yes"}, {"mtu": -5}, {"mtu": 1 << 32}], ids=str
)
def test_a_wrong_configuration_is_named(attachment: Attached, config: dict[str, Any]) -> None:
    (key,) = config
    with pytest.raises(CniError, match=f"{key}: ") as caught:
        attachment("tap", **config).add()
    assert caught.value.code == 7


def test_the_kernels_limit_of_the_mtu_leaves_no_tap(attachment: Attached, container: Container) -> None:
    with pytest.raises(CniError, match="cannot make eth0 of the new link: invalid argument"):
        attachment("tap", mtu=1 << 20).add()
    assert "eth0" not in container.run("ip -br link")


def test_an_selinux_context_where_there_is_no_selinux_is_refused(
    attachment: Attached, container: Container, kernel_has: Callable[[str], bool]
) -> None:
    if kernel_has("selinux"):
        pytest.skip("needs a kernel without SELinux")
    with pytest.raises(CniError, match='cannot use the SELinux context "system_u:system_r:svirt_t:s0"'):
        attachment("tap", selinuxContext="system_u:system_r:svirt_t:s0").add()
    assert "eth0" not in container.run("ip -br link")


@pytest.mark.needs_kernel("selinux")
@pytest.mark.parametrize("options", [{}, {**OWNED, "multiQueue": True}], ids=str)
def test_with_an_selinux_context_it_is_made_by_a_process_of_its_own(
    attachment: Attached, container: Container, options: dict[str, Any]
) -> None:
    runtime = attachment("tap", selinuxContext="system_u:system_r:svirt_t:s0", mtu=1300, **options)
    runtime.add()
    assert link(container)["mtu"] == 1300
    assert data(container)["multi_queue"] == bool(options)
    runtime.check()
    runtime.delete()


@pytest.mark.direct
def test_status_asks_whether_taps_can_be_made(
    host: Host, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    PluginRunner("tap", container).status()
    monkeypatch.setattr("pycni.kernel.link.taps._TUN", host.state / "nothing")
    with pytest.raises(CniError, match="no taps can be made: .*no such file") as caught:
        PluginRunner("tap", container).status()
    assert caught.value.code == 50
