"""Output for people: results as trees, errors with cause and remedy. rich is imported only for a terminal."""

import sys
from typing import TYPE_CHECKING

from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError
from pycni.protocol.result import Result
from pycni.runtime import NetworkConfig, RuntimeConf

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def console(*, stderr: bool = False) -> "Console":
    """Return a rich console for stdout or stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def done(sentence: str) -> None:
    """Print a success message if stdout is a terminal."""
    if on_terminal():
        from rich.markup import escape

        console().print(f"[green]✓[/] {escape(sentence)}")


def result(network: NetworkConfig, parameters: RuntimeConf, answer: VersionedResult) -> None:
    """Print the result of ADD as a tree."""
    console().print(result_tree(network, parameters, answer.result))


def result_tree(network: NetworkConfig, parameters: RuntimeConf, made: Result) -> "Tree":
    """Return the result of ADD as a tree: interfaces with addresses, routes, DNS, NTP servers."""
    from rich.text import Text
    from rich.tree import Tree

    chain = " → ".join(plugin.type for plugin in network.plugins)
    tree = Tree(Text.assemble(("✓ ", "green"), (network.name, "bold"), "  ", (chain, "dim")))
    tree.add(Text.assemble(("container  ", "dim"), f"{parameters.container_id}  ", (parameters.netns, "dim")))
    for index, interface in enumerate(made.interfaces):
        place = interface.sandbox or "host"
        style = "bold cyan" if interface.name == parameters.ifname and interface.sandbox else "cyan"
        mtu = f"  mtu {interface.mtu}" if interface.mtu else ""
        branch = tree.add(Text.assemble((interface.name, style), f"  {interface.mac}{mtu}  ", (f"in {place}", "dim")))
        for ip in made.ips:
            if ip.interface == index:
                branch.add(_address(ip.address, ip.gateway))
    for ip in made.ips:
        if ip.interface is None or not 0 <= ip.interface < len(made.interfaces):
            tree.add(_address(ip.address, ip.gateway))
    for route in made.routes:
        via = f" via {route.gw}" if route.gw else ""
        tree.add(Text.assemble(("route  ", "dim"), f"{route.dst}{via}"))
    if made.dns:
        dns = made.dns
        words = [*dns.nameservers, *(f"search {name}" for name in dns.search), *dns.options]
        tree.add(Text.assemble(("dns  ", "dim"), "  ".join([*words, *([dns.domain] if dns.domain else [])])))
    if made.ntp:
        tree.add(Text.assemble(("ntp  ", "dim"), "  ".join(map(str, made.ntp))))
    return tree


def _address(address: object, gateway: object) -> "Text":
    from rich.text import Text

    return Text.assemble((str(address), "bold green"), f"  gateway {gateway}" if gateway else "")


def failure(error: CniError) -> None:
    """Print an error to stderr: plain text, or on a terminal with code, cause and remedy."""
    notes = getattr(error, "__notes__", ())
    if not sys.stderr.isatty():
        sys.stderr.write("\n".join([f"Error: {error}", *notes]) + "\n")
        return
    from rich.text import Text

    screen = console(stderr=True)
    headline = str(error).removesuffix(f"; {error.details}") if error.details else str(error)
    screen.print(Text.assemble(("✗ ", "bold red"), (headline, "bold"), (f"  (code {error.code})", "dim")))
    for line in error.details.replace("; ", "\n").splitlines():
        screen.print(Text(f"  {line}"))
    for note in notes:
        screen.print(Text(f"  {note}", style="yellow"))
