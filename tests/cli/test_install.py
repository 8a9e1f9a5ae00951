"""pycni install and uninstall: whole or not at all, and nothing of anybody else's is lost."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.cli import files, installation
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.stub import Stub

STRANGER = "#!/bin/sh\necho stranger\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "opt" / "cni" / "bin"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_every_registered_plugin_gets_an_executable(directory: Path, state: Path) -> None:
    installation.install(directory, state=state)
    assert names(directory) == registry.names()
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        launcher = Stub.read(str(path))
        assert launcher is not None
        assert launcher.type == path.name


def test_only_some_if_that_is_asked(directory: Path, state: Path) -> None:
    installation.install(directory, ["static"], state)
    assert names(directory) == ["static"]
    with pytest.raises(CniError, match='no plugin is registered for type "nonsense"'):
        installation.install(directory, ["nonsense"], state)


def test_installing_again_replaces_ours(directory: Path, state: Path) -> None:
    installation.install(directory, ["static"], state)
    with (directory / "static").open("ab") as file:
        file.write(b"# older\n")
    installation.install(directory, ["static"], state)
    assert b"# older" not in (directory / "static").read_bytes()
    assert not (state / "displaced").exists()


def test_strangers_are_kept_aside_and_given_back(directory: Path, state: Path) -> None:
    directory.mkdir(parents=True)
    for name in ("static", "macvlan"):
        (directory / name).write_text(STRANGER)
        (directory / name).chmod(0o755)
    (directory / "loopback").symlink_to("/usr/lib/cni/loopback")
    installation.install(directory, ["static", "loopback", "bridge"], state)
    installation.install(directory, ["static", "loopback", "bridge"], state)
    assert Stub.read(str(directory / "static"))
    assert (directory / "macvlan").read_text() == STRANGER
    removed = installation.uninstall(directory, state)
    assert sorted(path.name for path in removed) == ["bridge", "loopback", "static"]
    assert names(directory) == ["loopback", "macvlan", "static"]
    assert (directory / "static").read_text() == STRANGER
    assert (directory / "loopback").readlink() == Path("/usr/lib/cni/loopback")
    assert installation.uninstall(directory, state) == []


def test_a_running_executable_is_replaced_without_being_opened(directory: Path, state: Path) -> None:
    """Issue 1221 of multus: to write into the file in place is to crash whoever runs it."""
    installation.install(directory, ["static"], state)
    inode = (directory / "static").stat().st_ino
    installation.install(directory, ["static"], state)
    assert (directory / "static").stat().st_ino != inode


def test_a_failure_leaves_no_temporary_file(directory: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device", str(directory / "static"))

    monkeypatch.setattr(files, "_sync", fail)
    with pytest.raises(CniError, match="cannot install into .*: no space left on device"):
        installation.install(directory, ["static"], state)
    assert names(directory) == []


def test_a_place_that_is_no_directory_is_named(tmp_path: Path, state: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CniError, match=f"cannot install into {tmp_path}/file/bin: not a directory"):
        installation.install(tmp_path / "file" / "bin", ["static"], state)


def test_an_interpreter_at_an_awkward_place_works(tmp_path: Path) -> None:
    """The kernel takes neither blanks nor long paths in a script's first line."""
    place = tmp_path / ("a long way " * 12) / ("down " * 30)
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    (launcher,) = installation.launchers(["static"])
    awkward = Stub(launcher.type, launcher.entry, launcher.versions, str(place / "python"), _paths())
    executable = tmp_path / "static"
    executable.write_text(awkward.script())
    executable.chmod(0o755)
    assert Stub.read(str(executable)) == awkward
    done = subprocess.run([executable], env={**os.environ, "CNI_COMMAND": "VERSION"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def _paths() -> tuple[str, ...]:
    return tuple(path for path in sys.path if path.endswith("site-packages"))


def test_the_command_says_what_it_did(directory: Path, state: Path) -> None:
    def pycni(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "pycni", *arguments], capture_output=True, text=True, check=False)

    assert pycni("install", directory, "--only", "static", "--state-dir", state).stdout == f"{directory}/static\n"
    assert pycni("uninstall", directory, "--state-dir", state).stdout == f"{directory}/static\n"
    failed = pycni("install", "/dev/null/bin")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "cannot install into /dev/null/bin" in failed.stderr
