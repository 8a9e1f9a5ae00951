"""Our executables, with and without the server, against Debian's Go plugins, in one run and in a throwaway host."""

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
    """Measure and report."""
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
        if options.lives:
            footprint(place, host, options.lives)


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--go", type=Path, default="/usr/lib/cni", help="the Go plugins (default: Debian's)")
    parser.add_argument("--rounds", type=int, default=30, help="lives of each case and contender (default: 30)")
    parser.add_argument("--lives", type=int, default=10_000, help="lives before the server's memory is looked at again")
    parser.add_argument("--rules", type=int, default=20_000, help="foreign rules of iptables (default: 20000)")
    parser.add_argument("--attached", type=int, default=1000, help="containers that are there already (default: 1000)")
    parser.add_argument("--output", type=Path, help="a directory for results.md and results.svg")
    return parser.parse_args()


def measure(place: Path, host: Host, options: argparse.Namespace) -> cases.Samples:
    """Every case in turn."""
    rounds, chains = options.rounds, cases.chains(place)
    with contenders(place, options.go) as who:
        go, ours, _ = who
        samples = floor.processes(ours.bin / "bridge", rounds) | floor.kernel(host, rounds)
        say("VERSION")
        samples |= cases.versions(who, rounds)
        for case, chain in chains.items():
            say(case)
            samples |= cases.lives(case, chain, who, rounds)
        for size in (30, 100):
            say(f"burst of {size}")
            samples |= cases.bursts(chains["chain"], (go, ours), size=size, rounds=max(rounds // 10, 2))
        say(f"{options.rules} foreign rules")
        with cases.foreign_rules((go, ours), options.rules):
            case = f"chain, {options.rules} foreign rules"
            samples |= cases.lives(case, chains["chain"], (go, ours), max(rounds // 3, 3))
        with deserted(place, ours) as empty:
            for where, neighbours in cases.neighbours(place).items():
                say(f"{options.attached} {where}")
                with cases.attached(neighbours, ours, options.attached):
                    case = f"chain, {options.attached} {where}"
                    samples |= cases.lives(case, chains["chain"], (ours, empty), rounds)
    return samples


@contextmanager
def deserted(place: Path, ours: Contender) -> Iterator[Contender]:
    """The same executables with a server of their own, on a host where nobody is attached."""
    host, socket = Host(place / "deserted"), place / "run" / "deserted.sock"
    with served(host, socket, place / "server3.log"):
        yield Contender("none attached", ours.bin, host, {"PYCNI_SOCKET": str(socket)})
    host.close()


def footprint(place: Path, host: Host, lives: int) -> None:
    """The server's memory before and after."""
    chain = cases.chains(place)["chain"]
    say(f"{lives} lives")
    socket = place / "run" / "pycni.sock"
    with served(host, socket, place / "server2.log") as server:
        ours = Contender("pycni", place / "bin", host)
        before = memory.Footprint.of(server.pid)
        memory.live(chain, ours, 100)
        warm = memory.Footprint.of(server.pid)
        memory.live(chain, ours, lives)
        console.print(f"server at rest: {before}; after 100 lives: {warm}")
        console.print(f"after {lives} lives more: {memory.Footprint.of(server.pid)}")


def say(what: str) -> None:
    """Say on stderr what comes now."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
