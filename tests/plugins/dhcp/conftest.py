"""A network with a DHCP server on it: Debian's dnsmasq, or ISC's dhcpd, which can grant leases of a few seconds."""

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
from pycni.protocol.errors import CniError
from pycni.sdk import registry, unix_listener
from pycni.sdk.dispatch import Response
from pycni.server.server import Server
from pycni.testing import Container, Host, PluginRunner, wait_for
from pycni.testing.topology import Netns

BRIDGE = "lan0"
SUBNET = "10.55.0"


class Process:
    """A process of a test with a log."""

    def __init__(self, netns: Netns | None, log: Path, *command: object) -> None:
        self.log = log
        with log.open("ab") as output, _inside(netns):
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, unless it has ended; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(20)

    def is_running(self) -> bool:
        return self._process.poll() is None


def _inside(netns: Netns | None) -> Any:
    return nullcontext() if netns is None else netns.netns.entered()


class Frame:
    """An Ethernet frame with IPv4 and UDP in it."""

    def __init__(self, data: bytes) -> None:
        self.mac = data[:6].hex(":")
        self.source, self.destination = IPv4Address(data[26:30]), IPv4Address(data[30:34])
        self.port = int.from_bytes(data[36:38]) if data[23] == 17 else 0
        payload = data[42:]
        self.options = {}
        if self.port == 67:
            with suppress(ValueError):
                self.kind, self.options = _told(payload)


def _told(payload: bytes) -> tuple[int, dict[int, bytes]]:
    """Kind and options of a client's message, read from the end of the cookie on."""
    options, position = {}, payload.index(b"\x63\x82\x53\x63") + 4
    while payload[position] != 255:
        length = payload[position + 1]
        options[payload[position]] = payload[position + 2 : position + 2 + length]
        position += 2 + length
    return options[53][0], options


class Lan:
    """A bridge of the host, and a router behind it with the DHCP server of the test."""

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
        """(Re)start ISC's dhcpd with leases of so many seconds, and further lines of its subnet's declaration."""
        # From another place, since profiles of AppArmor for the path of Debian's know only its own files.
        program = self.directory / "dhcpd"
        if not program.exists():
            shutil.copy2(_found("dhcpd"), program)
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
        """(Re)start dnsmasq, whose leases last two minutes or longer."""
        program = _found("dnsmasq")
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
        wait_for(lambda: ready in self.said() or not self._is_running(), "the DHCP server")
        assert self._is_running(), self.said()
        return self.server

    def _is_running(self) -> bool:
        return self.server is not None and self.server.is_running()

    @contextmanager
    def overheard(self) -> Iterator[Callable[[], list[Frame]]]:
        """The frames to DHCP servers that have reached the router since."""
        with self.router.netns.entered():
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        ear.bind(("eth0", 0x0800))
        ear.setblocking(False)
        frames: list[Frame] = []

        def heard() -> list[Frame]:
            with suppress(BlockingIOError):
                while True:
                    frames.append(Frame(ear.recv(1 << 16)))
            return [frame for frame in frames if frame.port == 67]

        with ear:
            yield heard

    def said(self) -> str:
        """What the server has logged since it was started."""
        assert self.server is not None
        return self.server.said()

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def close(self) -> None:
        self.stop_server()
        self.router.close()


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is missing: scripts/setup test installs it")
    return path


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    directory = tmp_path / "lan"
    directory.mkdir()
    made = Lan(host, directory)
    yield made
    made.close()


def records_in(leases: Path) -> list[dict[str, Any]]:
    """What a keeper has written down, but for what goes just now."""
    found = []
    for path in sorted(leases.glob("*.json")):
        with suppress(FileNotFoundError):
            found.append(json.loads(path.read_text()))
    return found


class Keeper:
    """A keeper of the test's own: `pycni dhcp-daemon` at a socket of the test."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "cni" / "dhcp.sock"
        self.leases = directory / "cni" / "dhcp.leases"
        self._log = directory / "keeper.log"
        self._process: Process | None = None

    def start(self, *flags: str) -> Process:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "pycni", "dhcp-daemon", "-socketpath", self.socket, "-lookevery", "100ms"]
        self._process = Process(None, self._log, *command, *flags)
        wait_for(lambda: self.is_listening() or not self.is_running(), "the keeper", seconds=20)
        assert self.is_running(), self.said()
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

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """What it remembers."""
        return records_in(self.leases)


@pytest.fixture
def no_keeper(host: Host, tmp_path: Path) -> Iterator[Keeper]:
    """A keeper that is not started yet."""
    made = Keeper(tmp_path / "run")
    (tmp_path / "run").mkdir()
    yield made
    made.stop()


@pytest.fixture
def keeper(no_keeper: Keeper) -> Keeper:
    no_keeper.start()
    return no_keeper


class Installed(PluginRunner):
    """A runtime that starts the executables of a plugin directory."""

    directory: Path

    def _call(self, command: str, extra: dict[str, Any] | None = None) -> Response:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": str(self.directory),
            # Whatever the server does not answer fails.
            "PYCNI_ONESHOT_DIR": "/nowhere",
        }
        document = json.dumps({**self.config, **(extra or {})}).encode()
        executable = self.directory / self.plugin
        done = subprocess.run([executable], env=env, input=document, capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise CniError.from_json(json.loads(done.stdout))
        return Response(done.stdout.decode())


class Served:
    """A resident server of the test's own, which keeps the leases, and a plugin directory whose calls it answers."""

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
        wait_for(lambda: ready in self.said(), "the server", seconds=30)

    @contextmanager
    def answered_here(self, *, workers: int) -> Iterator[None]:
        """The same by threads of the test, which do not start anew whatever another test does to the installation."""
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

    def said(self) -> str:
        return self.log.read_text()

    def attachment(self, plugin: str, container: Container, **config: Any) -> Installed:
        made = Installed(plugin, container, **config)
        made.directory = self.bin
        return made

    def bridged(self, container: Container) -> Installed:
        ipam = {"type": "dhcp", "daemonSocketPath": str(self.run / "cni" / "dhcp.sock")}
        return self.attachment("bridge", container, bridge=BRIDGE, ipam=ipam)

    def records(self) -> list[dict[str, Any]]:
        return records_in(self.run / "cni" / "dhcp.leases")


@pytest.fixture
def served(tmp_path: Path, host: Host) -> Iterator[Served]:
    if not installation.has_compiled_launcher():
        pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
    made = Served(tmp_path)
    yield made
    made.stop()


BridgeOf = Callable[..., PluginRunner]


@pytest.fixture
def bridge(container: Container, no_keeper: Keeper) -> BridgeOf:
    """Makes an attachment of the container, or another one, to the bridge; keyword arguments are options of dhcp."""

    def make(*, to: Container | None = None, bridge: dict[str, Any] | None = None, **ipam: Any) -> PluginRunner:
        section = {"type": "dhcp", "daemonSocketPath": str(no_keeper.socket), **ipam}
        return PluginRunner("bridge", to or container, bridge=BRIDGE, ipam=section, **(bridge or {}))

    return make


def address_of(container: Container, ifname: str = "eth0") -> list[str]:
    """The IPv4 addresses of the interface."""
    (link,) = container.json(f"ip -j -4 addr show dev {ifname}") or [{"addr_info": []}]
    return [f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", [])]
