"""pycni install and uninstall."""

from contextlib import ExitStack
from pathlib import Path

import click

from pycni.cli import installation, units
from pycni.protocol.errors import CniError

_DIRECTORY = Path("/opt/cni/bin")
_directory = click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=_DIRECTORY)
_state = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=installation.STATE,
    show_default=True,
    help="The directory for one-shot scripts and for executables that the plugins displace.",
)
_units = click.option(
    "--units-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=units.DIRECTORY,
    show_default=True,
    help="The directory for systemd units.",
)
_NOT_COMPILED = """\
the launcher was not compiled, because no C compiler was found when pycni was installed: the plugins are Python scripts,
each call starts Python (about 100 ms instead of 3 ms), and there is no server. To compile it, install a C compiler
(Debian: gcc and musl-tools), then pycni again (pip install --force-reinstall), and run `pycni install` again."""


@click.command()
@_directory
@click.option("--only", "types", multiple=True, metavar="TYPE", help="Install only this plugin; may be repeated.")
@_state
@click.option(
    "--socket",
    type=click.Path(dir_okay=False, path_type=Path),
    default=installation.SOCKET,
    show_default=True,
    help="The socket of `pycni serve`.",
)
@click.option("--python", is_flag=True, help="Install Python scripts, which never use a server.")
@click.option(
    "--server/--no-server",
    default=None,
    help="Install systemd units of the server even if systemd is not running; or do not use a server unless "
    "`pycni serve` is running.",
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Time without a call after which an on-demand server ends.",
)
@_units
def install(
    *,
    directory: Path,
    types: tuple[str, ...],
    state_dir: Path,
    socket: Path,
    python: bool,
    server: bool | None,
    idle_timeout: float,
    units_dir: Path,
) -> None:
    """Install all registered plugins into DIRECTORY (default: /opt/cni/bin).

    Executables of other programs with the same names are kept; `pycni uninstall` restores them.

    The resident server is started by systemd units, where systemd is running. Otherwise, and for callers in other
    namespaces such as rootless podman, the first call starts an on-demand server in the background, which ends when it
    is not used. `pycni server` shows and stops servers.
    """
    if python and server:
        raise click.UsageError("--python and --server exclude each other: Python scripts never use a server")
    is_compiled = installation.has_compiled_launcher()
    if server and not is_compiled:
        raise CniError(
            "a server needs the compiled launcher, which this installation lacks",
            details="install a C compiler (Debian: gcc and musl-tools), then pycni again",
        )
    use_server = server is not False and is_compiled and not python
    with ExitStack() as stack:
        written = []
        if use_server and (server or units.systemd_is_running()):
            if server or units.are_free(units_dir, directory):
                written = list(stack.enter_context(units.installed(units_dir, socket, directory)))
            else:
                click.echo(
                    f"the units in {units_dir} are those of another plugin directory and stay as they are", err=True
                )
        installed = installation.install(
            directory,
            types,
            state_dir,
            socket=socket,
            python=python,
            idle_timeout=idle_timeout * 60 if use_server else None,
        )
        removed = units.uninstall(units_dir, directory) if server is False else []
    click.echo("\n".join(map(str, [*installed, *written])))
    if not python and not is_compiled:
        click.echo(_NOT_COMPILED, err=True)
    if written and not units.restart(units_dir):
        click.echo(f"to start the server now: {units.RESTART}", err=True)
    if removed and not units.reload(units_dir):
        click.echo(f"to stop the server now: {units.STOP}", err=True)


@click.command()
@_directory
@_state
@_units
def uninstall(directory: Path, state_dir: Path, units_dir: Path) -> None:
    """Remove pycni's plugins from DIRECTORY (default: /opt/cni/bin), and restore the executables they displaced.

    Their server is stopped, and its units are removed.
    """
    removed_units = units.uninstall(units_dir, directory)
    removed = installation.uninstall(directory, state_dir)
    if removed or removed_units:
        click.echo("\n".join(map(str, [*removed, *removed_units])))
    if removed_units and not units.reload(units_dir):
        click.echo(f"to stop the server now: {units.STOP}", err=True)
