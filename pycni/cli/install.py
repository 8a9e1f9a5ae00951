"""pycni install and uninstall."""

from pathlib import Path

import click

from pycni.cli import installation

_DIRECTORY = Path("/opt/cni/bin")
_directory = click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=_DIRECTORY)
_state = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=installation.STATE,
    show_default=True,
    help="Where executables that pycni displaces are kept.",
)


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
def install(*, directory: Path, types: tuple[str, ...], state_dir: Path, socket: Path, python: bool) -> None:
    """Put a launcher for every registered plugin into DIRECTORY (/opt/cni/bin).

    Executables of the same names that are not pycni's are kept aside; `pycni uninstall` gives them back.
    """
    for path in installation.install(directory, types, state_dir, socket=socket, python=python):
        click.echo(path)


@click.command()
@_directory
@_state
def uninstall(directory: Path, state_dir: Path) -> None:
    """Take pycni's launchers out of DIRECTORY (/opt/cni/bin), and give back what they had displaced."""
    for path in installation.uninstall(directory, state_dir):
        click.echo(path)
