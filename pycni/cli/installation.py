"""Installation of launchers into a plugin directory, and of the one-shot scripts that they execute.

Container runtimes watch the plugin directory and may call a plugin at any moment. So each file is placed there by a
rename, and nothing but launchers is ever written into the directory.

Below the state directory (/var/lib/pycni), DIRECTORY being the path of the plugin directory with % for /:

    displaced/DIRECTORY/TYPE          an executable of another program that a launcher has replaced
    oneshot/DIRECTORY/KEY/TYPE        a one-shot script; KEY identifies the installation of pycni
    servers/KEY                       the script that starts its on-demand server

Two installations of pycni may be installed into one plugin directory, or one into several: neither changes the files
of another one.
"""

import logging
import os
import shutil
import subprocess  # noqa: TID251 - the interpreter of the scripts is asked whether it finds the plugins
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pycni.server
from pycni.cli import files
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.stub import Stub, configure_launcher, is_launcher
from pycni.server import on_demand

log = logging.getLogger(__name__)

STATE = Path("/var/lib/pycni")
SOCKET = Path("/run/pycni/pycni.sock")
_COMPILED = Path(pycni.server.__file__).with_name("launcher")
_LIBRARIES = ("pycni", "pydantic", "pyroute2")


def registered_stubs(only: Collection[str] = ()) -> list[Stub]:
    """Return the description of each registered plugin, or of those of the types in `only`.

    Log and leave out a plugin that cannot be loaded. Raises CniError for a type in `only` that cannot be loaded or that
    no package registers.
    """
    entries = registry.entries()
    if unknown := sorted(set(only) - set(entries)):
        raise CniError(
            f'no plugin is registered for type "{unknown[0]}"', details=f"registered types: {', '.join(entries)}"
        )
    versions: dict[str, tuple[str, ...]] = {}
    for name in sorted(set(only) or entries):
        try:
            versions[name] = registry.load_entry(entries[name]).versions
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of third-party code
            _skip(error, name, only)
    path = _search_path([entries[name] for name in versions])
    if not path:
        for name in list(versions):
            try:
                _expect_found(entries[name])
            except CniError as error:
                _skip(error, name, only)
                del versions[name]
    chosen = [entries[name] for name in versions]
    loadable = _loadable_without_pydantic(chosen, path)
    return [
        Stub(
            entry.name,
            entry.value,
            versions[entry.name],
            sys.executable,
            path,
            needs_pydantic=entry.value not in loadable,
        )
        for entry in chosen
    ]


def _skip(error: BaseException, name: str, only: Collection[str]) -> None:
    """Log the plugin that cannot be loaded. Raises CniError if the user asked for it by name."""
    failure = error if isinstance(error, CniError) else CniError(f'plugin "{name}" cannot be loaded: {error!r}')
    if name in only:
        raise failure from error
    log.warning("%s is not installed: %s", name, failure)


def has_compiled_launcher() -> bool:
    """Return whether the launcher was compiled when this copy of pycni was installed."""
    return _COMPILED.exists()


def install(
    directory: Path,
    only: Collection[str] = (),
    state: Path = STATE,
    *,
    socket: Path = SOCKET,
    python: bool = False,
    idle_timeout: float | None = None,
) -> list[Path]:
    """Install the plugins into the directory and return the paths of their executables. Raises CniError.

    They are copies (hard links) of the compiled launcher, which calls the server at `socket`, or executes the one-shot
    script if there is no server. If the launcher was not compiled, or with `python`, they are the one-shot scripts.

    With `idle_timeout`, launchers start an on-demand server, which ends after so many seconds without a call.

    Without `only`, executables of this installation whose type is not registered any more are removed.
    """
    chosen = registered_stubs(only)
    scripts = directory if python or not has_compiled_launcher() else oneshot_directory(directory, state)
    with files.explained(f"cannot install into {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        scripts.mkdir(parents=True, exist_ok=True)
        superseded = _unused_script_directories(directory, state) - {scripts}
        for stub in chosen:
            if scripts == directory:
                _displace(directory / stub.type, state)
            files.place(scripts / stub.type, partial(_write, text=stub.script()))
        server = state / "servers" / installation_key(directory)
        if scripts != directory:
            if idle_timeout is not None:
                server.parent.mkdir(parents=True, exist_ok=True)
                path = chosen[0].path if chosen else ()
                start = on_demand.start_script(sys.executable, path, socket.parent, idle_timeout)
                files.place(server, partial(_write, text=start))
            binary = configure_launcher(
                _COMPILED.read_bytes(),
                socket=str(socket),
                oneshot_directory=str(scripts.resolve()),
                server_script="" if idle_timeout is None else str(server.resolve()),
            )
            _place_under_all_names([directory / stub.type for stub in chosen], binary, state)
        if not only:
            _remove_unregistered(directory, state)
        for unused in superseded:
            shutil.rmtree(unused)
            stop_servers(unused.name, state)
        if idle_timeout is None:
            stop_servers(installation_key(directory), state)
    return [directory / stub.type for stub in chosen]


def oneshot_directory(directory: Path, state: Path = STATE) -> Path:
    """Return where `install` puts the one-shot scripts for launchers in that plugin directory."""
    return _script_parent(directory, state) / installation_key(directory)


def installation_key(directory: Path) -> str:
    """Return the name of this installation of pycni in that plugin directory, for files and sockets."""
    package = Path(pycni.server.__file__).parent.parent
    return sha256(f"{directory.resolve()}\0{package}".encode()).hexdigest()[:12]


def _script_parent(directory: Path, state: Path) -> Path:
    return state / "oneshot" / _flattened(directory)


def _flattened(directory: Path) -> str:
    return str(directory.resolve()).strip("/").replace("/", "%")


def _unused_script_directories(directory: Path, state: Path) -> set[Path]:
    """Return the script directories of other installations that no launcher in the plugin directory refers to.

    Installing over them makes them unused; they are removed by the next `install` only, since a call that began before
    may still execute its script.
    """
    parent = _script_parent(directory, state)
    stubs = (Stub.script_path(str(path)) for path in directory.iterdir())
    used = {Path(script).parent for script in stubs if script}
    return {path for path in parent.iterdir() if path.resolve() not in used} if parent.is_dir() else set()


def _remove_unregistered(directory: Path, state: Path) -> None:
    """Remove the executables of this installation for plugins that were uninstalled, and their scripts."""
    registered = registry.names()
    scripts = oneshot_directory(directory, state)
    for target in sorted(directory.iterdir()):
        stub = Stub.read(str(target))
        if stub is None or stub.type in registered or stub.interpreter != sys.executable:
            continue
        log.warning("%s is removed: no installed package provides this plugin any more", target)
        _remove(target, state)
        (scripts / target.name).unlink(missing_ok=True)


def _place_under_all_names(targets: Sequence[Path], binary: bytes, state: Path) -> None:
    """Place one file under all names, so that an upgrade is quick and the kernel caches one executable."""
    if not targets:
        return
    first, *others = targets
    _displace(first, state)
    files.place(first, partial(_write_bytes, data=binary))
    for target in others:
        _displace(target, state)
        files.place(target, partial(_link, first))


def _displace(target: Path, state: Path) -> None:
    """Keep a copy of an executable of another program that is about to be replaced."""
    if os.path.lexists(target) and not is_launcher(str(target)):
        copy = _displaced_copy(state, target)
        copy.parent.mkdir(parents=True, exist_ok=True)
        files.place(copy, partial(_copy, target))


def uninstall(directory: Path, state: Path = STATE) -> list[Path]:
    """Remove all launchers from the directory, and restore the executables that they displaced. Raises CniError.

    Return the paths of the executables that were removed or replaced. The scripts in the state directory are removed,
    too.
    """
    removed = []
    with files.explained(f"cannot uninstall from {directory}"):
        for target in sorted(directory.iterdir()) if directory.is_dir() else []:
            if is_launcher(str(target)):
                _remove(target, state)
                removed.append(target)
        scripts = _script_parent(directory, state)
        for key in [path.name for path in scripts.iterdir()] if scripts.is_dir() else []:
            stop_servers(key, state)
            shutil.rmtree(scripts / key)
        displaced = state / "displaced"
        for emptied in (
            scripts,
            scripts.parent,
            state / "servers",
            displaced / _flattened(directory),
            displaced,
            state,
        ):
            files.remove_if_empty(emptied)
    return removed


def stop_servers(key: str, state: Path) -> None:
    """Stop the on-demand servers of an installation, and remove the script that starts them."""
    script = state / "servers" / key
    files_left = on_demand.leftover_files(script)
    script.unlink(missing_ok=True)
    for pid, socket in on_demand.running_processes(key).items():
        if not on_demand.stop(pid):
            log.warning("the server with process id %d has not ended yet", pid)
        files_left.append(socket)
    for path in files_left:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            files.remove_if_empty(path.parent)


def _remove(target: Path, state: Path) -> None:
    """Remove an executable, or replace it by the one that it displaced."""
    copy = _displaced_copy(state, target)
    if os.path.lexists(copy):
        files.place(target, partial(_copy, copy))
        copy.unlink()
    else:
        target.unlink()


def _search_path(entries: Iterable[EntryPoint]) -> tuple[str, ...]:
    """Return the directories of the packages, for an interpreter that starts 3 ms faster because it skips `site`.

    Return an empty tuple if some package cannot be imported from them, as in an editable installation.
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


def _expect_found(entry: EntryPoint) -> None:
    """Raise CniError unless the interpreter finds the plugin without this process's environment variables."""
    if not _runs("-I", f"import {entry.module}"):
        package = entry.dist.name if entry.dist else "an unknown package"
        raise CniError(
            f'plugin "{entry.name}" of {package} cannot be loaded by {sys.executable} without PYTHONPATH',
            details=f"install {package} into the environment of pycni: PYTHONPATH does not reach plugin executables",
        )


def _runs(options: str, code: str) -> bool:
    return subprocess.run([sys.executable, options, "-c", code], capture_output=True, check=False).returncode == 0


def _displaced_copy(state: Path, target: Path) -> Path:
    """Return where the executable is kept that a launcher at `target` has replaced."""
    return state / "displaced" / _flattened(target.parent) / target.name


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
