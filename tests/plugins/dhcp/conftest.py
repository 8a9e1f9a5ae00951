"""A network with a DHCP server: dnsmasq, or ISC dhcpd, which can grant leases of a few seconds."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import installation
from pycni.sdk import registry, unix_listener
from pycni.server.server import Server
from pycni.testing import Container, Host, PluginRunner, wait_for
from pycni.testing.topology import Netns
from tests.plugins.conftest import ExecutableRunner

BRIDGE = "lan0"
SUBNET = "10.55.0"


class Process:
    """A process started by a test, with its output in a log file."""

    def __init__(self, netns: Netns | None, log: Path, *command: object) -> None:
        self.log = log
        with log.open("ab") as output, _inside(netns):
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal unless the process has ended, wait for it, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(20)

    def is_running(self) -> bool:
        return self._process.poll() is None


def _inside(netns: Netns | None) -> Any:
    return nullcontext() if netns is None else netns.netns.enter()


class Frame:
    """An Ethernet frame with an IPv4 packet. `kind` and `options` are set for messages to a DHCP server."""

    def __init__(self, data: bytes) -> None:
        self.mac = data[:6].hex(":")
        self.source, self.destination = IPv4Address(data[26:30]), IPv4Address(data[30:34])
        self.port = int.from_bytes(data[36:38]) if data[23] == 17 else 0
        payload = data[42:]
        self.options = {}
        if self.port == 67:
            with suppress(ValueError):
                self.kind, self.options = _kind_and_options(payload)


def _kind_and_options(payload: bytes) -> tuple[int, dict[int, bytes]]:
    """Return the message type and the options of a client's message, parsed from the magic cookie on."""
    options, position = {}, payload.index(b"\x63\x82\x53\x63") + 4
    while payload[position] != 255:
        length = payload[position + 1]
        options[payload[position]] = payload[position + 2 : position + 2 + length]
        position += 2 + length
    return options[53][0], options


class Lan:
    """A bridge on the host, and a router on it that runs the DHCP server of the test."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.router = Netns()
        self.server: Process | None = None
        host.run(f"ip link add {BRIDGE} address 02:00:00:00:55:01 type bridge && ip link set {BRIDGE} up")
        host.run(
            f"ip link add srv0 type veth peer name eth0 netns {self.router.path} && ip link set srv0 master {BRIDGE} up"
        )
        self.router.run(f"ip link set lo up && ip addr add {SUBNET}.1/24 dev eth0 && ip link set eth0 up")
        wait_for(lambda: "forwarding" in host.run("bridge link show dev srv0"), "srv0 forwards")

    def isc(self, *options: str, seconds: int = 600, pool: str = f"{SUBNET}.100 {SUBNET}.150") -> Process:
        """Start or restart ISC dhcpd with leases of `seconds` and further lines for the declaration of its subnet."""
        # Run a copy: AppArmor profiles for Debian's path allow only Debian's own configuration and lease files.
        program = self.directory / "dhcpd"
        if not program.exists():
            shutil.copy2(_path_of("dhcpd"), program)
        conf, leases = self.directory / "dhcpd.conf", self.directory / "dhcpd.leases"
        leases.touch()
        lines = [
            f"default-lease-time {seconds}; max-lease-time {seconds}; min-lease-time {seconds};",
            "authoritative; ping-check off; update-static-leases off; ddns-update-style none;",
            "option classless code 121 = array of unsigned integer 8;",
            f"subnet {SUBNET}.0 netmask 255.255.255.0 {{",
            f"range {pool};",
            f"option routers {SUBNET}.1;",
            *options,
            "}",
        ]
        conf.write_text("\n".join(lines) + "\n")
        return self._serve(
            "Server starting service",
            *(program, "-4", "-f", "-d", "-cf", conf, "-lf", leases, "-pf", self.directory / "dhcpd.pid", "eth0"),
        )

    def dnsmasq(self, *options: str, pool: str = f"{SUBNET}.100,{SUBNET}.150") -> Process:
        """Start or restart dnsmasq, whose leases last at least two minutes."""
        program = _path_of("dnsmasq")
        return self._serve(
            "DHCP, IP range",
            *(program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces"),
            *(
                "--dhcp-authoritative",
                f"--dhcp-range={pool},255.255.255.0,2m",
                "--log-dhcp",
                "--user=root",
                "--no-ping",
            ),
            *(f"--dhcp-leasefile={self.directory}/dnsmasq.leases", f"--pid-file={self.directory}/dnsmasq.pid"),
            *options,
        )

    def _serve(self, ready: str, *command: object) -> Process:
        self.stop_server()
        log = self.directory / "server.log"
        log.unlink(missing_ok=True)
        self.server = Process(self.router, log, *command)
        wait_for(lambda: ready in self.log_text() or not self._is_running(), "the DHCP server")
        assert self._is_running(), self.log_text()
        return self.server

    def _is_running(self) -> bool:
        return self.server is not None and self.server.is_running()

    @contextmanager
    def overheard(self) -> Iterator[Callable[[], list[Frame]]]:
        """Yield a function that returns the frames to DHCP servers that reached the router inside the block."""
        with self.router.netns.enter():
            sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        sniffer.bind(("eth0", 0x0800))
        sniffer.setblocking(False)
        frames: list[Frame] = []

        def received() -> list[Frame]:
            with suppress(BlockingIOError):
                while True:
                    frames.append(Frame(sniffer.recv(1 << 16)))
            return [frame for frame in frames if frame.port == 67]

        with sniffer:
            yield received

    def log_text(self) -> str:
        """Return the log of the server since its start."""
        assert self.server is not None
        return self.server.log_text()

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def close(self) -> None:
        self.stop_server()
        self.router.close()


def _path_of(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is missing: scripts/setup test installs it")
    return path


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    """A bridged network with a router, without a running DHCP server."""
    directory = tmp_path / "lan"
    directory.mkdir()
    made = Lan(host, directory)
    yield made
    made.close()


def lease_records(leases: Path) -> list[dict[str, Any]]:
    """Return the content of the lease files, without files that disappear while they are read."""
    found = []
    for path in sorted(leases.glob("*.json")):
        with suppress(FileNotFoundError):
            found.append(json.loads(path.read_text()))
    return found


class LeaseDaemon:
    """`pycni dhcp-daemon` at a socket of the test."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "cni" / "dhcp.sock"
        self.leases = directory / "cni" / "dhcp.leases"
        self._log = directory / "lease-daemon.log"
        self._process: Process | None = None

    def start(self, *flags: str) -> Process:
        """Start the daemon and wait until it listens."""
        command = [sys.executable, "-m", "pycni", "dhcp-daemon", "-socketpath", self.socket, "-lookevery", "100ms"]
        self._process = Process(None, self._log, *command, *flags)
        wait_for(lambda: self.is_listening() or not self.is_running(), "the lease daemon", seconds=20)
        assert self.is_running(), self.log_text()
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running()

    def is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as channel:
            return channel.connect_ex(str(self.socket)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    def restart(self, *flags: str) -> None:
        self.stop()
        self.start(*flags)

    def log_text(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """Return the daemon's lease files."""
        return lease_records(self.leases)


@pytest.fixture
def stopped_daemon(host: Host, tmp_path: Path) -> Iterator[LeaseDaemon]:
    """A lease daemon that is not started."""
    made = LeaseDaemon(tmp_path / "run")
    (tmp_path / "run").mkdir()
    yield made
    made.stop()


@pytest.fixture
def lease_daemon(stopped_daemon: LeaseDaemon) -> LeaseDaemon:
    """A running lease daemon."""
    stopped_daemon.start()
    return stopped_daemon


class ResidentServer:
    """A resident server of the test, which maintains the leases, and the plugin directory that it serves."""

    def __init__(self, directory: Path) -> None:
        self.run, self.bin = directory / "run", directory / "bin"
        self.socket = self.run / "pycni" / "pycni.sock"
        self.log = directory / "server.log"
        self._process: Process | None = None
        installation.install(self.bin, ["bridge", "dhcp", "static"], directory / "install", socket=self.socket)

    def start(self, *options: str) -> None:
        self._process = Process(
            None, self.log, sys.executable, "-m", "pycni", "serve", "--socket", self.socket, *options
        )
        ready = f"serving at {self.socket} as {self._process.pid}"
        wait_for(lambda: ready in self.log_text(), "the server", seconds=30)

    @contextmanager
    def serving_here(self, *, workers: int) -> Iterator[None]:
        """Serve the same socket with threads of the test process, which installations by other tests do not restart."""
        plugins = {name: registry.load(name) for name in ("bridge", "dhcp", "static")}
        with unix_listener(self.socket) as listener:
            server = Server(listener, plugins, workers)
            server.start()
            try:
                yield
            finally:
                assert server.drain(60)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log_text(self) -> str:
        return self.log.read_text()

    def attachment(self, plugin: str, container: Container, **config: Any) -> ExecutableRunner:
        made = ExecutableRunner(plugin, container, **config)
        made.directory = self.bin
        return made

    def bridge_attachment(self, container: Container) -> ExecutableRunner:
        ipam = {"type": "dhcp", "daemonSocketPath": str(self.run / "cni" / "dhcp.sock")}
        return self.attachment("bridge", container, bridge=BRIDGE, ipam=ipam)

    def records(self) -> list[dict[str, Any]]:
        return lease_records(self.run / "cni" / "dhcp.leases")


@pytest.fixture
def server(tmp_path: Path, host: Host) -> Iterator[ResidentServer]:
    """A resident server that is not started."""
    if not installation.has_compiled_launcher():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    made = ResidentServer(tmp_path)
    yield made
    made.stop()


CreateBridgeRunner = Callable[..., PluginRunner]


@pytest.fixture
def bridge(container: Container, stopped_daemon: LeaseDaemon) -> CreateBridgeRunner:
    """Return a function that creates a runner of bridge; its keyword arguments are options of dhcp."""

    def make(*, to: Container | None = None, bridge: dict[str, Any] | None = None, **ipam: Any) -> PluginRunner:
        section = {"type": "dhcp", "daemonSocketPath": str(stopped_daemon.socket), **ipam}
        return PluginRunner("bridge", to or container, bridge=BRIDGE, ipam=section, **(bridge or {}))

    return make


def addresses_of(container: Container, ifname: str = "eth0") -> list[str]:
    """Return the IPv4 addresses of the interface."""
    (link,) = container.json(f"ip -j -4 addr show dev {ifname}") or [{"addr_info": []}]
    return [f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", [])]
