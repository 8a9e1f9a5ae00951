"""Fixtures for firewall: pods on bridges, a host outside, the Go plugin and a real firewalld."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pycni.testing import Container, Host, PluginRunner, wait_for

# Skips duplicate address detection, so that IPv6 addresses are usable immediately.
WITHOUT_DAD = "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0"
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
    """A container on the bridge br<number>, with the host part `last` in its IPv4 and IPv6 address.

    `firewall` is the configuration of the firewall plugin; None for a pod without it.
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
        _shorten_neighbour_retries(container, "eth0")
        _shorten_neighbour_retries(self.host, self.bridge)
        if firewall is not None:
            self.firewall.add()

    def reaches(self, addresses: dict[int, str]) -> bool:
        """Return whether these addresses answer a ping; assert that IPv4 and IPv6 agree."""
        return _reaches(self.container, addresses)

    def delete(self) -> None:
        """Call DEL of both plugins, the last of the chain first."""
        self.firewall.delete()
        self.network.delete()


class OutsideHost:
    """A host on a link to the test's host, with default routes through it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        host = container.host
        host.run(f"ip link add up0 type veth peer name eth0 netns {container.path}")
        host.run("ip addr add 192.0.2.1/30 dev up0 && ip addr add 2001:db8::1/126 dev up0 nodad && ip link set up0 up")
        container.run("ip addr add 192.0.2.2/30 dev eth0 && ip addr add 2001:db8::2/126 dev eth0 nodad")
        container.run(
            "ip link set eth0 up && ip route add default via 192.0.2.1 && ip route add default via 2001:db8::1"
        )
        _shorten_neighbour_retries(container, "eth0")
        _shorten_neighbour_retries(host, "up0")
        wait_for(lambda: "state UP" in host.run("ip link show up0"), "the uplink")
        wait_for(lambda: "state UP" in container.run("ip link show eth0"), "the other end of the uplink")

    def reaches(self, addresses: dict[int, str]) -> bool:
        """Return whether these addresses answer a ping; assert that IPv4 and IPv6 agree."""
        return _reaches(self.container, addresses)


def _shorten_neighbour_retries(netns: Host | Container, name: str) -> None:
    """Repeat unanswered ARP and neighbour solicitations after 50 ms instead of 1 s."""
    netns.run(f"sysctl -qw net.ipv4.neigh.{name}.retrans_time_ms=50 net.ipv6.neigh.{name}.retrans_time_ms=50")


def _reaches(container: Container, addresses: dict[int, str]) -> bool:
    pings = " ".join(f"ping -c1 -W0.5 {address} &" for address in addresses.values())
    answered = container.run(f"{pings} wait", check=False).count("1 received")
    assert answered in (0, len(addresses)), f"only one of {addresses} answers"
    return answered > 0


@pytest.fixture
def pod(host: Host) -> Iterator[Callable[..., Pod]]:
    """Return a function that creates pods: `pod(1, 2, backend="nftables")` is 10.1.0.2 on br1."""
    host.run(WITHOUT_DAD)
    with ExitStack() as stack:

        def make(number: int, last: int, *, with_firewall: bool = True, **firewall: Any) -> Pod:
            container = Container(host)
            stack.callback(container.close)
            container.run(WITHOUT_DAD)
            return Pod(container, number, last, firewall if with_firewall else None)

        yield make


@pytest.fixture
def outside_host(host: Host) -> Iterator[OutsideHost]:
    """A host outside, 192.0.2.2 and 2001:db8::2."""
    container = Container(host)
    container.run(WITHOUT_DAD)
    yield OutsideHost(container)
    container.close()


@pytest.fixture
def go_firewall(go_runner: type[PluginRunner]) -> Callable[..., None]:
    """Return a function that calls the Go plugin for an attachment: `go_firewall("DEL", runtime)`."""

    def call(command: str, attachment: PluginRunner) -> None:
        config = {key: value for key, value in attachment.config.items() if key != "type"}
        go_attachment = go_runner(
            "firewall", attachment.container, ifname=attachment.ifname, previous=attachment.previous, **config
        )
        go_attachment.netns, go_attachment.result = attachment.netns, attachment.result
        {"ADD": go_attachment.add, "CHECK": go_attachment.check, "DEL": go_attachment.delete}[command]()
        if command == "ADD":
            attachment.result = {**(go_attachment.result or {}), "cniVersion": attachment.config["cniVersion"]}

    return call


@pytest.fixture
def firewalld(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real firewalld that manages the host's firewall, on its own system bus."""
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
