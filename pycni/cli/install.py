"""pycni install and uninstall."""

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
    help="Where executables that pycni displaces are kept.",
)
_units = click.option(
    "--units-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=units.DIRECTORY,
    show_default=True,
    help="Where systemd finds the server's units.",
)
_NOT_COMPILED = """\
the launcher was not compiled, because no C compiler was found when pycni was installed: the plugins are Python scripts,
each call starts Python (about 100 ms instead of 3 ms), and there is no server. To compile it, install a C compiler
(Debian: gcc and musl-tools), then pycni again (pip install --force-reinstall), and run `pycni install` again."""


@click.command()
@_directory
@click.option("--only", "types", multiple=True, metavar="TYPE", help="Only this plugin; may be repeated.")
@_state
@click.option(
    "--socket",
    type=click.Path(dir_okay=False, path_type=Path),
    default=installation.SOCKET,
    show_default=True,
    help="Where the launchers look for `pycni serve`.",
)
@click.option("--python", is_flag=True, help="Install Python scripts, which never ask a server.")
@click.option("--server", is_flag=True, help="Install and enable systemd units of the server, too.")
@_units
def install(
    *,
    directory: Path,
    types: tuple[str, ...],
    state_dir: Path,
    socket: Path,
    python: bool,
    server: bool,
    units_dir: Path,
) -> None:
    """Put a launcher for every registered plugin into DIRECTORY (/opt/cni/bin).

    Executables of the same names that are not pycni's are kept aside; `pycni uninstall` gives them back.
    """
    if not server:
        for path in installation.install(directory, types, state_dir, socket=socket, python=python):
            click.echo(path)
        if not python and not installation.has_compiled_launcher():
            click.echo(_NOT_COMPILED, err=True)
        return
    if python:
        raise click.UsageError("--python and --server exclude each other: scripts never ask a server")
    if not installation.has_compiled_launcher():
        raise CniError(
            "without the compiled launcher nobody would ask the server",
            details="install a C compiler (Debian: gcc and musl-tools), and pycni once more",
        )
    with units.installed(units_dir, socket, directory) as written:
        for path in (*installation.install(directory, types, state_dir, socket=socket), *written):
            click.echo(path)
    click.echo("to start it now: systemctl daemon-reload && systemctl restart pycni.socket pycni.service", err=True)


@click.command()
@_directory
@_state
@_units
def uninstall(directory: Path, state_dir: Path, units_dir: Path) -> None:
    """Take pycni's launchers out of DIRECTORY (/opt/cni/bin), and give back what they had displaced.

    Units of a server for them are removed, too.
    """
    for path in installation.uninstall(directory, state_dir):
        click.echo(path)
    if removed := units.uninstall(units_dir, directory):
        click.echo("\n".join(map(str, removed)))
        click.echo("to stop it now: systemctl stop pycni.socket pycni.service; systemctl daemon-reload", err=True)
