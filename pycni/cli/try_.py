"""The command try: ADD, CHECK and DEL of a network in a throwaway network namespace, step by step."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pycni.cli import options, show
from pycni.kernel import programs
from pycni.kernel.netns import throwaway
from pycni.protocol.errors import CniError
from pycni.runtime import NetworkConfig, Runtime, RuntimeConf, load

if TYPE_CHECKING:
    from rich.console import Console

_INSIDE = "PYCNI_TRY_INSIDE"  # set in the process that runs in the throwaway namespaces


@click.command("try")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.path
@options.ifname
@options.arg
@options.port
@options.capability
def try_(file: Path, **given: str | tuple[str, ...] | None) -> None:
    """Run ADD, CHECK and DEL of the network in FILE in throwaway namespaces.

    Show every change with its duration, the result, and what DEL leaves. Links, a DHCP server or flannel's subnet.env
    that the network refers to are created in the throwaway namespaces. The host's own network and the state directories
    of the plugins are not touched. Root is not needed.
    """
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        throwaway.enter([sys.executable, "-P", "-m", "pycni", *sys.argv[1:]])
    throwaway.hide_state()
    network = load(file)
    with tempfile.TemporaryDirectory() as directory:
        _Trial(network, file, Path(directory), given).run()


class _Trial:
    """One attachment from ADD to DEL, and a comparison of the namespaces before and after."""

    def __init__(
        self, network: NetworkConfig, file: Path, state: Path, given: dict[str, str | tuple[str, ...] | None]
    ) -> None:
        from pycni.cli.trial_host import TrialHost
        from pycni.testing import Container, Host

        self.network = network
        self.screen: Console = show.console()
        self.screen.print(f"[bold]{network.name}[/] from {file}, in throwaway namespaces")
        self.host = Host(state)
        self.host.netns.enter_permanently()
        self.container = Container(self.host)
        self.trial_host = TrialHost(self.host, self.container)
        path = [given["path"]] if isinstance(given["path"], str) else []
        self.runtime = Runtime(
            [part for text in path for part in text.split(":")], cache_dir=state / "cache", in_process=True
        )
        ports, capabilities, args = (_texts(given[name]) for name in ("ports", "capabilities", "args"))
        self.parameters = RuntimeConf(
            container_id="try",
            netns=self.container.path,
            ifname=str(given["ifname"] or "eth0"),
            args=options.cni_args_of("", args),
            capability_args=options.capability_args_of("", capabilities, ports),
        )

    def run(self) -> None:
        """Run and show ADD, CHECK and DEL. Raise CniError if DEL leaves anything of the attachment."""
        with self.trial_host:
            self.trial_host.prepare(self.network)
            for note in self.trial_host.notes:
                self.screen.print(f"  {note}", markup=False)
            self._run_verbs()

    def _run_verbs(self) -> None:
        before = self._snapshots()
        with self._verb("ADD"):
            result = self.runtime.add_network_list(self.network, self.parameters)
        if result is not None:
            show.result(self.network, self.parameters, result)
        try:
            self._check()
        finally:
            with self._verb("DEL"):
                self.runtime.delete_network_list(self.network, self.parameters)
        after = self._snapshots()
        if before and after:
            self._show_left(sorted(after[0] - before[0]), sorted(after[1] - before[1]))

    def _snapshots(self) -> tuple[set[str], set[str]] | None:
        """Return the objects of both namespaces as lines of text; None if the programs that list them are missing."""
        from pycni.testing import snapshot

        missing = [name for name in ("ip", "tc", "nft") if programs.find(name) is None]
        if missing:
            self.screen.print(f"  not compared before and after: {', '.join(missing)} not found", style="dim")
            return None
        return snapshot.of_namespace(self.host), snapshot.of_namespace(self.container)

    def _check(self) -> None:
        from pycni.protocol import version

        if self.network.disable_check or not version.at_least(self.network.cni_version, version.INTRODUCED_IN["CHECK"]):
            return
        with self._verb("CHECK"):
            self.runtime.check_network_list(self.network, self.parameters)

    @contextmanager
    def _verb(self, name: str) -> Iterator[None]:
        from pycni.kernel.journal import watching

        started = time.perf_counter()
        self.screen.print(f"\n[bold]{name}[/]")
        with watching(self._step):
            yield
        self.screen.print(f"  [green]✓[/] {name} took {(time.perf_counter() - started) * 1000:.1f} ms")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        from rich.text import Text

        started = time.perf_counter()
        yield
        self.screen.print(Text.assemble((f"  {(time.perf_counter() - started) * 1000:7.1f} ms  ", "dim"), what))

    def _show_left(self, on_host: list[str], in_container: list[str]) -> None:
        from rich.text import Text

        from pycni.kernel.owner import Owner

        # The kernel adds this rule with the first VRF of a namespace and keeps it.
        in_container = [line for line in in_container if '"l3mdev"' not in line]
        owner = Owner(self.network.name, self.parameters.container_id, self.parameters.ifname)
        own = [line for line in on_host if owner.key in line or owner.host_ifname in line] + in_container
        if own:
            raise CniError(f"DEL left {len(own)} objects of the attachment", details="; ".join(own))
        self.screen.print("\n[green]✓[/] DEL left nothing of the attachment")
        shared = [line for line in on_host if not line.startswith("nft ") or line.startswith("nft table")]
        if shared:
            self.screen.print("  Shared objects that stay:")
        for line in shared:
            self.screen.print(Text(f"    {line.removesuffix(' {')}", style="dim"))


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()
