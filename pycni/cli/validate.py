"""The command validate: problems of network configurations, each with its path in the document."""

import sys
from pathlib import Path
from typing import Any

import click

from pycni.cli import options, show
from pycni.runtime import discovery
from pycni.runtime.plugins import Plugins
from pycni.runtime.problems import Problem


@click.command()
@click.argument("places", nargs=-1, metavar="[FILE|DIR]...", type=click.Path(exists=True, path_type=Path))
@options.path
@options.conf_dir
@options.timeout
def validate(places: tuple[Path, ...], **given: Any) -> None:
    """Validate configuration files, or all files of a directory (default: --conf-dir).

    Verifies the format, the executables and versions of the plugins, the options of all plugins of this installation,
    and whether the installed container runtimes support the version. Exit status 1 if there is a problem.
    """
    from pycni.runtime.validation import Validator

    validator = Validator(Plugins(options.directories(given["path"]), given["timeout"]))
    findings = {file: validator.file(file) for place in places or (given["conf_dir"],) for file in _files(place)}
    if show.on_terminal():
        _show(findings)
    else:
        for file, problems in findings.items():
            for problem in problems:
                click.echo(f"{file}: {problem}")
    if any(findings.values()):
        sys.exit(1)


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place] if place.exists() else []
    return [*discovery.files(place, *discovery.LISTS), *discovery.files(place, *discovery.SINGLES)]


def _show(findings: dict[Path, list[Problem]]) -> None:
    from rich.text import Text

    screen = show.console()
    for file, problems in findings.items():
        screen.print(Text.assemble(("✗ ", "red") if problems else ("✓ ", "green"), (str(file), "bold")))
        for problem in problems:
            screen.print(Text.assemble("  ", (problem.path, "cyan"), "  " if problem.path else "", problem.text))
    if not findings:
        screen.print(Text("no network configurations", style="yellow"))
