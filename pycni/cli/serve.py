"""pycni serve."""

import logging
import os
from pathlib import Path

import click


@click.command()
@click.option(
    "--socket",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/run/pycni/pycni.sock"),
    show_default=True,
    help="The socket.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Calls that each process executes at the same time.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=min(2, len(os.sched_getaffinity(0))),
    show_default="2, or 1 on one CPU",
    help="Processes that execute calls; each uses at most one CPU.",
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End after so long without a call.",
)
@click.option("--on-demand", "script", type=click.Path(path_type=Path), hidden=True)
def serve(path: Path, workers: int, processes: int, idle_timeout: float | None, script: Path | None) -> None:
    """Run the resident server: execute the calls of the launchers, and keep DHCP leases.

    It saves the start of a Python process for each call. It ends on SIGTERM, after the calls in progress, and restarts
    when the installation of pycni changes.
    """
    # pydantic looks for plugins in every installed distribution, and loads Python's build configuration to find time
    # zones: a tenth of the time to start.
    os.environ |= {"PYDANTIC_DISABLE_PLUGINS": "true", "PYTHONTZPATH": ""}
    from pycni.server.lifecycle import Options
    from pycni.server.lifecycle import serve as run

    root = logging.getLogger()
    if script is None:
        root.setLevel(min(root.level, logging.INFO))
    run(Options(path, workers, processes, idle_timeout, script))
