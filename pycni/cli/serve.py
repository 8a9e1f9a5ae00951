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
    help="Where launchers find the server.",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), default=8, show_default=True, help="Calls that a process has at once."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=min(2, len(os.sched_getaffinity(0))),
    show_default="2, if it may use two processors",
    help="Processes that answer calls; each keeps one processor busy.",
)
def serve(path: Path, workers: int, processes: int) -> None:
    """Answer the calls of the launchers, without the start-up of a Python process for each, and keep DHCP leases.

    Ends on SIGTERM when the calls at hand are answered; starts itself anew when the installation changes.
    """
    from pycni.server.lifecycle import serve as run

    logging.getLogger().setLevel(logging.INFO)
    run(path, workers, processes)
