"""Launchers in a plugin directory: put there whole or not at all, with what they displace kept and given back.

Nothing but the launchers is ever written into the directory, and each of them by a temporary file, its mode, fsync
and rename: runtimes watch the directory, and may call a plugin at any moment.
"""

import os
import shutil
import subprocess  # noqa: TID251 - the launchers' interpreter is asked whether it finds the plugins
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import pycni.server
from pycni.cli import files
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.stub import Stub, configure_launcher

STATE = Path("/var/lib/pycni")
SOCKET = Path("/run/pycni/pycni.sock")
_COMPILED = Path(pycni.server.__file__).with_name("launcher")
_LIBRARIES = ("pycni", "pydantic", "pyroute2")


def launchers(only: Iterable[str] = ()) -> list[Stub]:
    """A launcher for each registered plugin, or for those of these types. Raises CniError."""
    entries = {entry.name: entry for entry in entry_points(group=registry.GROUP)}
    if unknown := sorted(set(only) - set(entries)):
        raise CniError(f'no plugin is registered for type "{unknown[0]}"', details=f"there are {', '.join(entries)}")
    chosen = [entries[name] for name in sorted(set(only) or entries)]
    path = _search_path(chosen)
    if not path:
        _expect_found(chosen)
    loadable = _loadable_without_pydantic(chosen, path)
    return [
        Stub(
            entry.name,
            entry.value,
            registry.load(entry.name).versions,
            sys.executable,
            path,
            needs_pydantic=entry.value not in loadable,
        )
        for entry in chosen
    ]


def has_compiled_launcher() -> bool:
    """Whether the launcher was compiled with this installation."""
    return _COMPILED.exists()


def install(
    directory: Path, only: Iterable[str] = (), state: Path = STATE, *, socket: Path = SOCKET, python: bool = False
) -> list[Path]:
    """Put the launchers into the directory; returns their paths. Raises CniError.

    The compiled launcher, one file under all names, asks the server at `socket` and starts the scripts, which are kept
    below `state`, when there is none. Where it could not be compiled, or with `python`, the scripts take its place.
    """
    chosen = launchers(only)
    with files.explained(f"cannot install into {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        scripts = directory if python or not has_compiled_launcher() else state / "oneshot"
        scripts.mkdir(parents=True, exist_ok=True)
        for launcher in chosen:
            if scripts == directory:
                _make_room(directory / launcher.type, state)
            files.place(scripts / launcher.type, partial(_write, text=launcher.script()))
        if scripts != directory:
            binary = configure_launcher(
                _COMPILED.read_bytes(), socket=str(socket), oneshot_directory=str(scripts.resolve())
            )
            _place_under_all_names([directory / launcher.type for launcher in chosen], binary, state)
    return [directory / launcher.type for launcher in chosen]


def _place_under_all_names(targets: Sequence[Path], binary: bytes, state: Path) -> None:
    """One file, so that an upgrade of many plugins is never half done for long, and is loaded once."""
    first, *others = targets
    _make_room(first, state)
    files.place(first, partial(_write_bytes, data=binary))
    for target in others:
        _make_room(target, state)
        files.place(target, partial(_link, first))


def _make_room(target: Path, state: Path) -> None:
    """Keep aside what stands at the target, unless it is ours."""
    if os.path.lexists(target) and Stub.read(str(target)) is None:
        _keep(target, _kept(state, target))


def uninstall(directory: Path, state: Path = STATE) -> list[Path]:
    """Take every launcher out of the directory and give back what was there before. Raises CniError."""
    removed = []
    with files.explained(f"cannot uninstall from {directory}"):
        for target in sorted(directory.iterdir()) if directory.is_dir() else []:
            if Stub.read(str(target)) is None:
                continue
            kept = _kept(state, target)
            if os.path.lexists(kept):
                files.place(target, partial(_copy, kept))
                kept.unlink()
            else:
                target.unlink()
            removed.append(target)
    return removed


def _search_path(entries: Iterable[EntryPoint]) -> tuple[str, ...]:
    """Where the packages lie, for an interpreter that skips site and so starts 3 ms sooner.

    Empty if they cannot all be found that way, as in an editable installation.
    """
    names = dict.fromkeys([*_LIBRARIES, *(entry.module.partition(".")[0] for entry in entries)])
    places: dict[str, None] = {}
    for name in names:
        spec = find_spec(name)
        origin = spec and spec.origin
        if not origin:
            return ()
        file = Path(origin)
        places[str(file.parent.parent if file.name == "__init__.py" else file.parent)] = None
    modules = "; ".join(f"import {entry.module}" for entry in entries)
    return tuple(places) if _runs("-IS", f"import sys; sys.path[:0] = {list(places)!r}; {modules}") else ()


def _loadable_without_pydantic(entries: Sequence[EntryPoint], path: Sequence[str]) -> list[str]:
    """The entries that a one-shot process can load with pydantic_subset in place of pydantic.

    If a plugin changes after the installation, its process falls back to pydantic.
    """
    code = (
        f"import sys; sys.path[:0] = {list(path)!r}; from pycni.oneshot import loadable_without_pydantic; "
        f"print(*loadable_without_pydantic({[entry.value for entry in entries]!r}), sep=chr(10))"
    )
    command = [sys.executable, "-IS" if path else "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def _expect_found(entries: Iterable[EntryPoint]) -> None:
    """Raise CniError unless the interpreter finds every plugin without our environment's help."""
    for entry in entries:
        if not _runs("-I", f"import {entry.module}"):
            package = entry.dist.name if entry.dist else "an unknown package"
            raise CniError(
                f'plugin "{entry.name}" of {package} cannot be loaded by {sys.executable} on its own',
                details=f"install {package} into the environment of pycni; PYTHONPATH does not reach executables",
            )


def _runs(options: str, code: str) -> bool:
    return subprocess.run([sys.executable, options, "-c", code], capture_output=True, check=False).returncode == 0


def _kept(state: Path, target: Path) -> Path:
    """Where that which stood at `target` before us is kept."""
    return state / "displaced" / str(target.parent.resolve()).strip("/").replace("/", "%") / target.name


def _keep(target: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.place(kept, partial(_copy, target))


def _write(temporary: Path, *, text: str) -> None:
    temporary.write_text(text)


def _write_bytes(temporary: Path, *, data: bytes) -> None:
    temporary.write_bytes(data)


def _link(source: Path, temporary: Path) -> None:
    temporary.unlink()
    temporary.hardlink_to(source)


def _copy(source: Path, temporary: Path) -> None:
    if source.is_symlink():
        temporary.unlink()
        temporary.symlink_to(source.readlink())
    else:
        shutil.copy2(source, temporary)
