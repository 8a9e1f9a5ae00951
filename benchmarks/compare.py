"""Compare calls with another installation of pycni, and host-local's cold store with the Go plugin."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import cases
from calls import Chain, Contender, served
from pycni.kernel.netns import throwaway
from pycni.testing import Host

# Both installations install themselves: their options may differ.
INSTALL = """
import sys
from pathlib import Path
from pycni.cli import installation

installation.install(Path(sys.argv[1], "bin"), state=Path(sys.argv[1], "state"), socket=Path(sys.argv[2]))
"""
NEW, OLD, GO = "pycni", "other", "Go"
VERBS = ("ADD", "CHECK", "DEL")


def main() -> None:
    """Measure and print."""
    options = arguments()
    if "PYCNI_BENCH_INSIDE" not in os.environ:
        os.environ["PYCNI_BENCH_INSIDE"] = "1"
        throwaway.enter([sys.executable, *sys.argv])
    throwaway.hide_state()
    print("milliseconds and ratios: of medians (of minima)", flush=True)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        place = Path(directory)
        new = stack.enter_context(installed(NEW, place, sys.executable, with_server=options.served))
        if options.against:
            old = stack.enter_context(installed(OLD, place, options.against, with_server=options.served))
            for case in options.case or ("loopback", "host-local", "bridge", "chain"):
                chains = {name: cases.chains(place / name)[case] for name in (NEW, OLD)}  # with stores of their own
                show(cases.cycles(case, chains, (new, old), options.rounds), OLD)
        if (options.go / "host-local").exists() and not options.served:
            host = Host(place / "host-go")
            stack.callback(host.close)
            go = Contender(GO, options.go, host)
            for size in options.reservations:
                show(cold_stores(place, (new, go), size=size, rounds=max(options.rounds // 2, 3)), GO)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", metavar="PYTHON", help="the interpreter of the other installation")
    parser.add_argument("--served", action="store_true", help="calls through the servers of both, not one-shot calls")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--go", type=Path, default="/usr/lib/cni", help="the Go plugins (default: Debian's)")
    parser.add_argument("--rounds", type=int, default=40, help="lifecycles per case and contender (default: 40)")
    parser.add_argument(
        "--reservations", type=int, nargs="*", default=(10_000,), help="sizes of host-local's store (default: 10000)"
    )
    return parser.parse_args()


@contextmanager
def installed(name: str, place: Path, python: str, *, with_server: bool) -> Iterator[Contender]:
    """Yield the launchers of an installation, on a host of their own. With a server, one-shot calls fail."""
    target = place / name
    target.mkdir()
    socket = target / "pycni.sock"
    subprocess.run([python, "-c", INSTALL, target, socket], check=True, env={**os.environ, "PYTHONPATH": ""})
    host = Host(place / f"host-{name}")
    with ExitStack() as stack:
        stack.callback(host.close)
        if with_server:
            stack.enter_context(served(host, socket, target / "server.log", python))
        env = {"PYCNI_ONESHOT_DIR": "/nowhere"} if with_server else {"PYCNI_SOCKET": "/nowhere"}
        yield Contender(name, target / "bin", host, env)


def cold_stores(place: Path, who: Sequence[Contender], *, size: int, rounds: int) -> cases.Samples:
    """Time the ADD of host-local to a store that a Go plugin filled, as the first one of a process.

    In the case "cold" pycni has not used the store yet. In the case "used" it has, and the Go plugin has not.
    """
    samples: cases.Samples = {}
    stores, chains = {}, {}
    for contender in who:
        data = stores[contender.name] = place / f"{contender.name}-{size}"
        ipam = {"type": "host-local", "subnet": "10.0.0.0/8", "dataDir": str(data)}
        chains[contender.name] = Chain({"type": "host-local", "ipam": ipam})
        fill(data / "bench", size)
    for number in range(rounds + 1):
        for contender in cases.shuffled(who, number):
            chain = chains[contender.name]
            for case in ("cold", "used"):
                if case == "cold":
                    (stores[contender.name] / ".bench.owners").unlink(missing_ok=True)
                elapsed, result = chain.add(contender, "/nowhere", "measured")
                chain.delete(contender, "/nowhere", "measured", result)
                if number:
                    key = (f"host-local, {size} reservations, {case}", "ADD", contender.name)
                    samples.setdefault(key, []).append(elapsed)
    return samples


def fill(store: Path, size: int) -> None:
    """Create reservations as the Go plugin writes them."""
    store.mkdir(parents=True)
    for index in range(size):
        address = f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}"
        (store / address).write_bytes(f"{index:064x}\r\neth0".encode())
    last = size - 1
    (store / "last_reserved_ip.0").write_text(f"10.{last >> 16}.{last >> 8 & 255}.{last & 255}")
    (store / "lock").touch()


def show(samples: Mapping[tuple[str, str, str], list[float]], other: str) -> None:
    """Print the medians and minima of pycni and of the other contender, and their ratios."""
    for case, verb, name in samples:
        if name == NEW:
            new, old = samples[case, verb, NEW], samples[case, verb, other]
            print(
                f"{case:38} {verb:5}  pycni {median(new):6.1f} ({min(new):5.1f})  {other} {median(old):6.1f} "
                f"({min(old):5.1f})  ratio {median(new) / median(old):.2f} ({min(new) / min(old):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
