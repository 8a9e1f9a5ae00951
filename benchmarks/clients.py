"""Measure container runtimes with the default `pycni install`, and with the Go plugins.

Each case is a script of tests/clients, run from start to end: containerd's CRI with pods in parallel, podman, and
podman without root. Nothing is started by hand: if a server runs, the first call has started it. The contenders
alternate.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

CLIENTS = Path(__file__).resolve().parents[1] / "tests" / "clients"
CASES = {
    "podman": ("podman.sh", {}, 0.85),
    "CRI, 12 pods": ("cri-parallel.sh", {"PODS": "12"}, 0.75),
    "CRI, 40 pods": ("cri-parallel.sh", {"PODS": "40"}, 0.75),
    "podman, rootless": ("podman-rootless.sh", {}, 1.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case with each contender (default 5)")
    parser.add_argument("--go", type=Path, default=Path("/usr/lib/cni"), help="directory of the Go plugins")
    parser.add_argument("--one-shot", action="store_true", help="also measure `pycni install --no-server`")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    arguments = parser.parse_args()
    cases = arguments.cases or list(CASES)
    with TemporaryDirectory(prefix="pycni-benchmark-") as name:
        place = Path(name)
        place.chmod(0o755)  # rootless podman executes the plugins, too
        contenders = {"Go": arguments.go, "pycni": install(place / "default")}
        if arguments.one_shot:
            contenders["one-shot"] = install(place / "one-shot", "--no-server")
        times = {case: measure(case, contenders, arguments.rounds) for case in cases}
    print("| case | " + " | ".join(f"{name}, s" for name in contenders) + " | ratio | aim |")
    print("|---" * (len(contenders) + 3) + "|")
    for case, seconds in times.items():
        medians = {contender: statistics.median(values) for contender, values in seconds.items()}
        cells = " | ".join(f"{median:.1f} ({min(seconds[name]):.1f})" for name, median in medians.items())
        print(f"| {case} | {cells} | {medians['pycni'] / medians['Go']:.2f} | {CASES[case][2]} |")
    print("\nMedian (minimum) of the time from start to end of the script; ratio of the medians.")
    return 0


def install(place: Path, *options: str) -> Path:
    """Install pycni into a directory of its own, and return it."""
    directory = place / "bin"
    places = [directory, "--state-dir", place / "state", "--units-dir", place / "units"]
    subprocess.run([sys.executable, "-P", "-m", "pycni", "install", *places, *options], check=True, capture_output=True)
    return directory


def measure(case: str, contenders: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each run took, by contender."""
    script, settings, _ = CASES[case]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            began = time.monotonic()
            done = subprocess.run(
                [CLIENTS / script, contenders[name]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHON": sys.executable, "CNIVER": "1.0.0", **settings},
            )
            if done.returncode != 0:
                sys.exit(f"{script} failed with {name}:\n{done.stdout}{done.stderr}")
            seconds[name].append(time.monotonic() - began)
            print(f"{case}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
