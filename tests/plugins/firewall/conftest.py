"""A town of pods for firewall: bridges with containers, the world outside, Debian's Go plugin and a real firewalld."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pycni.testing import Container, Host, PluginRunner, wait_for

# New addresses are used before the kernel has looked for duplicates.
QUICKLY = "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0"
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8::2"}
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type> <listen>unix:path={socket}</listen> <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Pod:
    """A container at a bridge of the host, `number` telling its subnet and `last` its addresses; both plugins are ours.

    `firewall` is the configuration of firewall; None for a pod without one.
    """

    def __init__(self, container: Container, number: int, last: int, firewall: dict[str, Any] | None) -> None:
        self.container = container
        self.host = container.host
        self.bridge = f"br{number}"
        self.addresses = {4: f"10.{number}.0.{last}", 6: f"fd00:{number}::{last}"}
        self.gateways = {4: f"10.{number}.0.1", 6: f"fd00:{number}::1"}
        lengths = {4: 24, 6: 64}
        ipam = {
            "type": "static",
            "addresses": [{"address": f"{ip}/{lengths[version]}"} for version, ip in self.addresses.items()],
        }
        bridge = {"bridge": self.bridge, "isDefaultGateway": True, "ipam": ipam}
        config = {"name": "test", **(firewall or {})}
        self.network = PluginRunner("bridge", container, name=config["name"], **bridge)
        self.firewall = PluginRunner("firewall", container, previous=self.network.add(), **config)
        _ask_soon_again(container, "eth0")
        _ask_soon_again(self.host, self.bridge)
        if firewall is not None:
            self.firewall.add()

    def reaches(self, there: dict[int, str]) -> bool:
        """Whether it gets an answer from there, by both families; it must be the same by both."""
        return _reaches(self.container, there)

    def leave(self) -> None:
        """DEL, as runtimes do: the last plugin first."""
        self.firewall.delete()
        self.network.delete()


class World:
    """A host beyond a cable of the host, which knows the way back to the pods."""

    def __init__(self, container: Container) -> None:
        self.container = container
        host = container.host
        host.run(f"ip link add up0 type veth peer name eth0 netns {container.path}")
        host.run("ip addr add 192.0.2.1/30 dev up0 && ip addr add 2001:db8::1/126 dev up0 nodad && ip link set up0 up")
        container.run("ip addr add 192.0.2.2/30 dev eth0 && ip addr add 2001:db8::2/126 dev eth0 nodad")
        container.run(
            "ip link set eth0 up && ip route add default via 192.0.2.1 && ip route add default via 2001:db8::1"
        )
        _ask_soon_again(container, "eth0")
        _ask_soon_again(host, "up0")
        wait_for(lambda: "state UP" in host.run("ip link show up0"), "the uplink")
        wait_for(lambda: "state UP" in container.run("ip link show eth0"), "the other end of the uplink")

    def reaches(self, there: dict[int, str]) -> bool:
        """Whether it gets an answer from there, by both families; it must be the same by both."""
        return _reaches(self.container, there)


def _ask_soon_again(netns: Host | Container, name: str) -> None:
    """Look for a neighbour that has not answered after 50 ms again, instead of a second."""
    netns.run(f"sysctl -qw net.ipv4.neigh.{name}.retrans_time_ms=50 net.ipv6.neigh.{name}.retrans_time_ms=50")


def _reaches(container: Container, there: dict[int, str]) -> bool:
    pings = " ".join(f"ping -c1 -W0.5 {address} &" for address in there.values())
    answered = container.run(f"{pings} wait", check=False).count("1 received")
    assert answered in (0, len(there)), f"one of {there} alone answers"
    return answered > 0


@pytest.fixture
def pod(host: Host) -> Iterator[Callable[..., Pod]]:
    """Makes pods: `pod(1, 2, backend="nftables")` is 10.1.0.2 at br1."""
    host.run(QUICKLY)
    with ExitStack() as stack:

        def make(number: int, last: int, *, walled: bool = True, **firewall: Any) -> Pod:
            container = Container(host)
            stack.callback(container.close)
            container.run(QUICKLY)
            return Pod(container, number, last, firewall if walled else None)

        yield make


@pytest.fixture
def world(host: Host) -> Iterator[World]:
    """The world outside."""
    container = Container(host)
    container.run(QUICKLY)
    yield World(container)
    container.close()


@pytest.fixture
def go_firewall(go: type[PluginRunner]) -> Callable[..., None]:
    """The Go plugin, called for an attachment of ours: `go_firewall("DEL", runtime)`."""

    def call(command: str, ours: PluginRunner) -> None:
        config = {key: value for key, value in ours.config.items() if key != "type"}
        theirs = go("firewall", ours.container, ifname=ours.ifname, previous=ours.previous, **config)
        theirs.netns, theirs.result = ours.netns, ours.result
        {"ADD": theirs.add, "CHECK": theirs.check, "DEL": theirs.delete}[command]()
        if command == "ADD":
            ours.result = {**(theirs.result or {}), "cniVersion": ours.config["cniVersion"]}

    return call


@pytest.fixture
def firewalld(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real firewalld that rules the host, on a system bus of its own."""
    missing = [name for name in ("firewalld", "firewall-cmd", "dbus-daemon") if not shutil.which(name)]
    if missing:
        reason = f"{', '.join(missing)} missing: see scripts/setup"
        if os.environ.get("PYCNI_REQUIRE_CLIENTS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    socket, config = tmp_path / "bus", tmp_path / "bus.conf"
    config.write_text(BUS.format(socket=socket))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={socket}")
    script = f"""
        mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log || exit
        dbus-daemon --config-file={config} --nofork --nopidfile &
        until [ -S {socket} ]; do sleep 0.01; done
        exec firewalld --nofork --nopid
    """
    log = (tmp_path / "firewalld.log").open("w")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(
            lambda: host.run("firewall-cmd --state 2>&1", check=False).strip() == "running", "firewalld", seconds=60
        )
        yield
    finally:
        process.kill()
        process.wait()
        log.close()
