"""Objects that `pycni try` creates because a network refers to them: links, a DHCP server, flannel's subnet.env."""

from __future__ import annotations

import subprocess  # noqa: TID251 - dnsmasq
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from pycni.kernel import programs
from pycni.kernel.namespace import Namespace
from pycni.protocol import go_json
from pycni.protocol.address import parse_cidr, parse_ip
from pycni.protocol.result import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycni.runtime import NetworkConfig, PluginConfig
    from pycni.testing import Container, Host

_ON_MASTER = ("macvlan", "ipvlan", "vlan")
_KEYS = ("master", "linkInContainer", "device", "hwaddr", "bridge", "subnetFile")
_DEFAULT_LINK = "eth1"  # where a configuration names no link
# The LAN behind every created link (RFC 5737).
_ROUTER, _HOST, _POOL = parse_cidr("192.0.2.1/24"), parse_cidr("192.0.2.2/24"), "192.0.2.100,192.0.2.150"
_DEFAULT_ROUTE = Route(parse_cidr("0.0.0.0/0"), gw=parse_ip("192.0.2.1"))
_SUBNET_ENV_DIRECTORY = Path("/run/flannel")  # hidden by throwaway.hide_state
_SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


class TrialHost:
    """Creates what the plugins of a network refer to, in throwaway namespaces.

    `notes` says in words what was created and what could not be. Leaving the context ends the processes that were
    started.
    """

    def __init__(self, host: Host, container: Container) -> None:
        self.notes: list[str] = []
        self._host, self._container = host, container
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def prepare(self, network: NetworkConfig) -> None:
        """Create the missing objects for all plugins of the network."""
        for plugin in network.plugins:
            options = go_json.select_members(plugin.document, _KEYS)
            if plugin.type == "flannel":
                self._write_subnet_env(Path(str(options.get("subnetFile", _SUBNET_ENV_DIRECTORY / "subnet.env"))))
            lan = self._create_link(plugin, options)
            if plugin.ipam == "dhcp" and lan is not None:
                self._start_dhcp_server(lan)

    def _create_link(self, plugin: PluginConfig, options: Mapping[str, Any]) -> Container | None:
        """Create the link that the plugin is to use, if it is missing; return the namespace at its other end."""
        place: Host | Container = self._host
        if plugin.type in _ON_MASTER:
            place = self._container if options.get("linkInContainer") else self._host
            name = str(options.get("master", "")) or _DEFAULT_LINK
        elif plugin.type == "host-device" and not options.keys().isdisjoint({"device", "hwaddr"}):
            name = str(options.get("device", "")) or _DEFAULT_LINK
        elif plugin.type == "bridge" and plugin.ipam == "dhcp":
            name = _DEFAULT_LINK
        else:
            return None
        return self._create_cable(place, name, plugin, options)

    def _create_cable(
        self, place: Host | Container, name: str, plugin: PluginConfig, options: Mapping[str, Any]
    ) -> Container | None:
        from pycni.testing import Container

        lan = Container(self._host)
        with ExitStack() as opened:
            here, there = Namespace.at(place.path), Namespace.at(lan.path)
            opened.callback(here.close)
            opened.callback(there.close)
            if here.find_link(name) is not None:
                return None
            link, other_end = here.links.create_veth(name, peer="lan0", peer_in=there)
            if mac := str(options.get("hwaddr", "")):
                link.ensure(mac=mac)
            there.addresses.configure(other_end, [_ROUTER], [])
            if plugin.type == "bridge":
                bridge = here.bridges.ensure(str(options.get("bridge", "cni0")))
                here.bridges.attach(link, bridge)
            elif plugin.type in _ON_MASTER and not options.get("master"):
                here.addresses.configure(link, [_HOST], [_DEFAULT_ROUTE])
            else:
                link.ensure(up=True)
            here.links.wait_for_carrier(link)
        where = "in the container" if place is self._container else "on the host"
        self.notes.append(f"created link {name} {where}: a veth pair to a LAN with the router {_ROUTER}")
        return lan

    def _start_dhcp_server(self, lan: Container) -> None:
        program = programs.find("dnsmasq")
        if program is None:
            self.notes.append("no DHCP server: install Debian's package dnsmasq-base")
            return
        directory = self._resources.enter_context(TemporaryDirectory())
        command = [program, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--no-ping"]
        command += ["--interface=lan0", f"--dhcp-range={_POOL},2m", "--log-facility=-", f"--pid-file={directory}/pid"]
        with lan.netns.enter():
            server = subprocess.Popen(
                [*command, f"--dhcp-leasefile={directory}/leases"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self._resources.callback(server.wait)
        self._resources.callback(server.terminate)
        self._start_lease_daemon()
        self.notes.append(f"started a DHCP server on that LAN (dnsmasq, {_POOL.replace(',', ' to ')})")

    def _start_lease_daemon(self) -> None:
        from pycni.sdk import registry

        self._resources.enter_context(registry.load("dhcp").background_service(Path("/run")))

    def _write_subnet_env(self, path: Path) -> None:
        if path.exists():
            return
        if path.parent != _SUBNET_ENV_DIRECTORY:
            self.notes.append(f"did not create {path}: only {_SUBNET_ENV_DIRECTORY} is hidden from the host")
            return
        path.write_text(_SUBNET_ENV)
        self.notes.append(f"created {path} as flanneld writes it: subnet 10.244.1.1/24")
