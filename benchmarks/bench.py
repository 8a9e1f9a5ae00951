"""Measure pycni's executables, with and without the server, against the Go plugins, on throwaway hosts."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

import cases
import floor
import memory
import report
from calls import Contender, contenders, served
from pycni.kernel.netns import throwaway
from pycni.testing import Host

console = Console(highlight=False, width=150)


def main() -> None:
    """Measure, and print the report."""
    options = arguments()
    if not (options.go / "bridge").exists():
        sys.exit(f"{options.go}/bridge is missing: apt-get install containernetworking-plugins")
    if "PYCNI_BENCH_INSIDE" not in os.environ:
        os.environ["PYCNI_BENCH_INSIDE"] = "1"
        throwaway.enter([sys.executable, *sys.argv])
    throwaway.hide_state()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        host = Host(place)
        host.netns.enter_permanently()
        samples = measure(place, host, options)
        table = report.rows(samples)
        report.show(table, console)
        if options.output:
            options.output.mkdir(exist_ok=True)
            (options.output / "results.md").write_text("\n".join(report.markdown(table)) + "\n")
            (options.output / "results.svg").write_text(report.picture(table))
        if options.cycles:
            footprint(place, host, options.cycles)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--go", type=Path, default="/usr/lib/cni", help="the Go plugins (default: Debian's)")
    parser.add_argument("--rounds", type=int, default=30, help="samples per case and contender (default: 30)")
    parser.add_argument(
        "--cycles", type=int, default=10_000, help="ADD and DEL calls before the second look at the server's memory"
    )
    parser.add_argument("--rules", type=int, default=20_000, help="iptables rules of other programs (default: 20000)")
    parser.add_argument("--attached", type=int, default=1000, help="containers attached before (default: 1000)")
    parser.add_argument("--output", type=Path, help="directory for results.md and results.svg")
    return parser.parse_args()


def measure(place: Path, host: Host, options: argparse.Namespace) -> cases.Samples:
    """Measure every case, one after the other."""
    rounds, chains = options.rounds, cases.chains(place)
    with contenders(place, options.go) as who:
        go, ours, _ = who
        samples = floor.processes(ours.bin / "bridge", rounds) | floor.kernel(host, rounds)
        say("VERSION")
        samples |= cases.versions(who, rounds)
        for case, chain in chains.items():
            say(case)
            samples |= cases.cycles(case, chain, who, rounds)
        for size in (30, 100):
            say(f"burst of {size}")
            samples |= cases.bursts(chains["chain"], (go, ours), size=size, rounds=max(rounds // 10, 2))
        say(f"{options.rules} foreign rules")
        with cases.foreign_rules((go, ours), options.rules):
            case = f"chain, {options.rules} foreign rules"
            samples |= cases.cycles(case, chains["chain"], (go, ours), max(rounds // 3, 3))
        with empty_host(place, ours) as empty:
            for where, neighbours in cases.neighbours(place).items():
                say(f"{options.attached} {where}")
                with cases.attached(neighbours, ours, options.attached):
                    case = f"chain, {options.attached} {where}"
                    samples |= cases.cycles(case, chains["chain"], (ours, empty), rounds)
    return samples


@contextmanager
def empty_host(place: Path, ours: Contender) -> Iterator[Contender]:
    """Yield the same executables with a separate server, on a host without containers."""
    host, socket = Host(place / "empty"), place / "run" / "empty.sock"
    with served(host, socket, place / "server3.log"):
        yield Contender("none attached", ours.bin, host, {"PYCNI_SOCKET": str(socket)})
    host.close()


def footprint(place: Path, host: Host, cycles: int) -> None:
    """Print the server's memory at rest, after 100 cycles, and after all cycles."""
    chain = cases.chains(place)["chain"]
    say(f"{cycles} cycles")
    socket = place / "run" / "pycni.sock"
    with served(host, socket, place / "server2.log") as server:
        ours = Contender("pycni", place / "bin", host)
        before = memory.Footprint.of(server.pid)
        memory.run_cycles(chain, ours, 100)
        warm = memory.Footprint.of(server.pid)
        memory.run_cycles(chain, ours, cycles)
        console.print(f"server at rest: {before}; after 100 cycles: {warm}")
        console.print(f"after {cycles} more cycles: {memory.Footprint.of(server.pid)}")


def say(what: str) -> None:
    """Print on stderr what is measured next."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
