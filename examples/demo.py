"""Attach two containers to a bridge as a container runtime does, test their connectivity, and detach them.

Everything happens in network and mount namespaces of this process. The machine's own network is not changed.
"""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from pycni.cli import installation
from pycni.kernel.netns import throwaway
from pycni.protocol.errors import CniError
from pycni.protocol.result import Result
from pycni.runtime import Runtime, RuntimeConf, load
from pycni.testing import Container, Host, snapshot, wait_for

CONFLIST = Path(__file__).with_name("10-mynet.conflist")
screen = Console(highlight=False, width=100)
failures: list[str] = []
HOST_PORT = 8080
GREETING = b"hello from blue"
T = TypeVar("T")


def main() -> None:
    """Run the demo; exit with status 1 if a step fails."""
    if "PYCNI_DEMO_INSIDE" not in os.environ:
        os.environ["PYCNI_DEMO_INSIDE"] = "1"
        throwaway.enter([sys.executable, __file__])
    throwaway.hide_state()
    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory))
    sys.exit(f"failed: {', '.join(failures)}" if failures else 0)


def run(place: Path) -> None:
    """Install the plugins, then attach, ping, check and detach two containers."""
    network = load(CONFLIST)
    screen.rule(f"[bold]pycni: the network {network.name}, from {CONFLIST.name}")
    binaries = place / "bin"
    step("pycni install", lambda: installation.install(binaries, state=place / "state"))
    screen.print(f"  executables: {'  '.join(sorted(path.name for path in binaries.iterdir()))}", style="dim")

    host = Host(place)
    host.netns.enter_permanently()
    blue, green, outside = Container(host), Container(host), Container(host)
    connect(host, outside)
    before = snapshot.of_namespace(host)

    runtime = Runtime([str(binaries)], cache_dir=place / "cache")
    published = {"portMappings": [{"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"}]}
    wanted = {
        "blue": RuntimeConf("blue", blue.path, capability_args=published),
        "green": RuntimeConf("green", green.path),
    }
    results: dict[str, Result] = {}
    for name, parameters in wanted.items():
        answer = step(f"ADD {name}", partial(runtime.add_network_list, network, parameters))
        if answer is not None:
            results[name] = answer.result
    draw(results)
    ping_all({"blue": blue, "green": green}, results)
    with greeting(blue):
        for address in ("192.0.2.1", "2001:db8::1"):
            where = f"[{address}]:{HOST_PORT}" if ":" in address else f"{address}:{HOST_PORT}"
            step(f"request from outside to {where}", partial(expect_greeting, outside, address))
    for name, parameters in wanted.items():
        step(f"CHECK {name}", partial(runtime.check_network_list, network, parameters))
    for name, parameters in wanted.items():
        step(f"DEL {name}", partial(runtime.delete_network_list, network, parameters))
    step("no state is left", lambda: expect_nothing(before, host, place))


def step(what: str, do: Callable[[], T]) -> T | None:
    """Run a step, and print whether it succeeded and how long it took. Return its result, None if it failed."""
    started = time.perf_counter()
    try:
        result = do()
    except (CniError, AssertionError, OSError) as error:
        failures.append(what)
        screen.print(f"[red]✗[/] {what}: {error}")
        return None
    screen.print(f"[green]✓[/] {what:<40} {(time.perf_counter() - started) * 1000:6.0f} ms")
    return result


def connect(host: Host, outside: Container) -> None:
    """Connect the host to an outside that has no route to the containers, so that replies need masquerading."""
    host.run(f"ip link add up0 type veth peer name eth0 netns {outside.path}")
    host.run("sysctl -q net.ipv6.conf.up0.accept_dad=0")
    outside.run("sysctl -q net.ipv6.conf.eth0.accept_dad=0")
    host.run("ip addr add 192.0.2.1/30 dev up0 && ip addr add 2001:db8::1/126 dev up0 nodad && ip link set up0 up")
    outside.run("ip addr add 192.0.2.2/30 dev eth0 && ip addr add 2001:db8::2/126 dev eth0 nodad")
    outside.run("ip link set eth0 up")
    wait_for(lambda: "LOWER_UP" in host.run("ip link show up0"), "carrier on up0")


def draw(results: dict[str, Result]) -> None:
    """Print a picture of the network."""
    if len(results) < 2:
        return
    (one, a), (two, b) = results.items()
    (bridge, port_a, _), (_, port_b, _) = a.interfaces, b.interfaces
    gateway4, gateway6 = (str(ip.gateway) for ip in a.ips)
    address4, address6 = (str(ip.address) for ip in a.ips)
    other4, other6 = (str(ip.address) for ip in b.ips)
    lines = [
        (one, "", ""),
        ("eth0 ──────────────────", f" {port_a.name} ─┐", "outside"),
        (address4, f"{'':18}├─ {bridge.name} ─── masquerade ─── up0 ───", "─── eth0"),
        (address6, f"{'':18}│  {gateway4:<12}     192.0.2.1", "192.0.2.2"),
        (two, f"{'':18}│  {gateway6:<12}     2001:db8::1", "2001:db8::2"),
        ("eth0 ──────────────────", f" {port_b.name} ─┘", ""),
        (other4, "", ""),
        (other6, "", ""),
    ]
    screen.print(f"\n   {'':23}┌{' host ':─^54}┐")
    for left, inside, right in lines:
        style = "bold cyan" if left in results else "green" if left[0].isalnum() and "/" in left else "default"
        screen.print(f"   [{style}]{left:<23}[/]│{inside:<54}│ {right}")
    screen.print(f"   {'':23}└{'─' * 54}┘\n")


def ping_all(containers: dict[str, Container], results: dict[str, Result]) -> None:
    """Ping the other container, the gateway and the outside from each container, in both address families."""
    table = Table("from", "to", "address", "answer", title="ping", title_justify="left", title_style="bold")
    for name, container in containers.items():
        (other,) = set(containers) - {name}
        targets = [(other, str(ip.address.ip)) for ip in results[other].ips]
        targets += [("host", str(ip.gateway)) for ip in results[name].ips]
        targets += [("outside", "192.0.2.2"), ("outside", "2001:db8::2")]
        for whom, address in targets:
            started = time.perf_counter()
            answered = container.pings(address, seconds=2)
            if not answered:
                failures.append(f"ping from {name} to {whom}")
            took = f"[green]✓[/] {(time.perf_counter() - started) * 1000:.0f} ms" if answered else "[red]✗ none[/]"
            table.add_row(name, whom, address, took)
    screen.print(table)


@contextmanager
def greeting(container: Container) -> Iterator[None]:
    """Within the block, answer connections to port 80 of the container with a greeting."""
    with container.netns.enter():  # a socket belongs to the namespace in which it was created
        listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(GREETING)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def expect_greeting(outside: Container, address: str) -> None:
    """Raise AssertionError unless the container answers on the published host port."""
    with outside.netns.enter(), socket.create_connection((address, HOST_PORT), timeout=3) as connection:
        answer = connection.recv(100)
    assert answer == GREETING, f"the answer was {answer!r}"


def expect_nothing(before: set[str], host: Host, place: Path) -> None:
    """Raise AssertionError if a veth, a firewall element, an address reservation or a cache entry is left."""
    left = [line for line in snapshot.of_namespace(host) - before if "veth" in line or ", id: " in line]
    store = Path("/var/lib/cni/networks/mynet")
    left += [path.name for path in store.iterdir() if path.name[0].isdigit() or ":" in path.name]
    left += [path.name for path in (place / "cache" / "results").iterdir()]
    assert not left, f"left: {left}"


if __name__ == "__main__":
    main()
