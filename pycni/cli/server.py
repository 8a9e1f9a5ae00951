"""pycni server: shows the resident servers of this machine, and stops those that a call has started."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import click

from pycni.cli import installation
from pycni.protocol.errors import CniError
from pycni.server import on_demand
from pycni.server.on_demand import RunningServer

_HOW_TO_STOP = {
    "systemd": "systemctl stop pycni.socket pycni.service",
    "a command": "kill {pid}",
    "a call": "pycni server stop",
}


@click.group(invoke_without_command=True)
@click.option(
    "--socket",
    type=click.Path(dir_okay=False, path_type=Path),
    default=installation.SOCKET,
    show_default=True,
    help="The socket given to `pycni install`.",
)
@click.pass_context
def server(ctx: click.Context, socket: Path) -> None:
    """Show the resident servers: process, socket, calls, and how to stop them.

    Shown are those at the socket, and on-demand servers, which a call has started.
    """
    if ctx.invoked_subcommand is None:
        found = list(_running(socket))
        for one in found:
            click.echo(_description(one))
        if not found:
            click.echo("no server is running", err=True)


@server.command()
@click.pass_context
def stop(ctx: click.Context) -> None:
    """Stop on-demand servers, after the calls in progress. The next call that finds no server starts one again."""
    assert ctx.parent is not None
    for one in _running(ctx.parent.params["socket"]):
        if one.status.get("started_by", "a call") != "a call":
            click.echo(f"the server with pid {one.pid} is not stopped: it was not started by a call", err=True)
        elif on_demand.stop(one.pid):
            click.echo(f"stopped the server with pid {one.pid}")
        else:
            raise CniError(f"the server with pid {one.pid} has not ended", details="it is still executing a call")


def _running(socket: Path) -> Iterator[RunningServer]:
    """Yield the servers of the installation with that socket, and on-demand servers in other namespaces."""
    directories = dict.fromkeys([socket.parent, Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere")) / "pycni"])
    seen = set()
    for path in (path for directory in directories for path in sorted(directory.glob("*.sock"))):
        if found := RunningServer.find(path):
            seen.add(found.pid)
            yield found
    for pid, path in on_demand.running_processes().items():
        if pid not in seen:
            # By the root directory of its process, because the server may be in another mount namespace.
            reachable = RunningServer.find(Path(f"/proc/{pid}/root{path}"))
            yield RunningServer(path, pid, reachable.status if reachable else {})


def _description(one: RunningServer) -> str:
    if not one.status:
        return f"pid {one.pid} at {one.socket}: in a user namespace of another user"
    status = one.status
    idle_for = "executing calls" if status["in_progress"] else f"idle for {_duration(status['idle'])}"
    limit = f", ends after {_duration(status['idle_timeout'])}" if status["idle_timeout"] else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["since"]))
    return f"""\
pid {one.pid} at {one.socket}
    version     {status["version"]}
    started     {since} by {status["started_by"]}
    calls       {status["calls"]}, {status["in_progress"]} in progress
    now         {idle_for}{limit}
    to stop it  {_HOW_TO_STOP[status["started_by"]].format(pid=one.pid)}"""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
