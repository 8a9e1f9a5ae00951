"""pycni install and uninstall: atomic, and other programs lose nothing."""

import os
import shutil
import stat
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner

from pycni.cli import files, installation
from pycni.cli.install import install
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.stub import Stub

OTHER_PROGRAM = "#!/bin/sh\necho other\n"


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


def test_executables_of_other_programs_are_displaced_and_restored(directory: Path, state: Path) -> None:
    directory.mkdir(parents=True)
    for name in ("static", "macvlan"):
        (directory / name).write_text(OTHER_PROGRAM)
        (directory / name).chmod(0o755)
    (directory / "loopback").symlink_to("/usr/lib/cni/loopback")
    installation.install(directory, ["static", "loopback", "bridge"], state)
    installation.install(directory, ["static", "loopback", "bridge"], state)
    assert Stub.read(str(directory / "static"))
    assert (directory / "macvlan").read_text() == OTHER_PROGRAM
    removed = installation.uninstall(directory, state)
    assert sorted(path.name for path in removed) == ["bridge", "loopback", "static"]
    assert names(directory) == ["loopback", "macvlan", "static"]
    assert (directory / "static").read_text() == OTHER_PROGRAM
    assert (directory / "loopback").readlink() == Path("/usr/lib/cni/loopback")
    assert installation.uninstall(directory, state) == []


def test_a_running_executable_is_replaced_without_being_opened(directory: Path, state: Path) -> None:
    """Issue 1221 of multus: writing into the file fails, or crashes the process that executes it."""
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
    (launcher,) = installation.registered_stubs(["static"])
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

    assert (
        pycni("install", directory, "--only", "static", "--no-server", "--state-dir", state).stdout
        == f"{directory}/static\n"
    )
    assert pycni("uninstall", directory, "--state-dir", state).stdout == f"{directory}/static\n"
    failed = pycni("install", "/dev/null/bin", "--no-server")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "cannot install into /dev/null/bin" in failed.stderr


@pytest.fixture
def other_environment(tmp_path: Path) -> str:
    """The interpreter of a second virtual environment with the same packages."""
    place = tmp_path / "other"
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    mine = Path(installation.pycni.__path__[0]).parent
    shutil.copytree(mine / "pycni", packages / "pycni", ignore=shutil.ignore_patterns("__pycache__"))
    for path in mine.iterdir():
        if not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    return str(place / "bin" / "python3")


def test_two_installations_have_scripts_of_their_own(
    directory: Path, state: Path, tmp_path: Path, other_environment: str
) -> None:
    second = tmp_path / "second"
    installation.install(directory, ["static"], state)
    command = [
        other_environment,
        "-m",
        "pycni",
        "install",
        second,
        "--no-server",
        "--only",
        "static",
        "--state-dir",
        state,
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert [Stub.read(str(place / "static")).interpreter for place in (directory, second)] == [
        sys.executable,
        other_environment,
    ]
    shutil.rmtree(tmp_path / "other")
    assert run(directory / "static", "VERSION").returncode == 0


def test_a_second_installation_in_one_directory_keeps_the_scripts_of_calls_in_progress(
    directory: Path, state: Path, other_environment: str
) -> None:
    installation.install(directory, ["static", "bridge"], state)
    scripts = installation.oneshot_directory(directory, state)
    command = [
        other_environment,
        "-m",
        "pycni",
        "install",
        directory,
        "--no-server",
        "--state-dir",
        state,
        "--only",
        "static",
    ]
    for more in ([], ["--only", "bridge"]):
        subprocess.run([*command, *more], check=True, capture_output=True)
        assert (scripts / "bridge").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert not scripts.exists()
    assert Stub.read(str(directory / "bridge")).interpreter == other_environment


def run(executable: Path, command: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "CNI_COMMAND": command}
    return subprocess.run([executable], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


class Packages:
    """Third-party packages, in a directory that PYTHONPATH may name."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def add(self, plugin: str, code: str) -> None:
        """Install a package with one plugin, whose class is `Plugin` in `code`."""
        module = plugin.replace("-", "_")
        metadata = self._place / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[pycni.plugins]\n{plugin} = {module}:Plugin\n")
        (self._place / f"{module}.py").write_text(code)

    def remove(self, plugin: str) -> None:
        """Uninstall the package."""
        shutil.rmtree(self._place / f"{plugin.replace('-', '_')}-1.0.dist-info")

    def pycni(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pycni", *arguments],
            env={**os.environ, "PYTHONPATH": str(self._place)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path / "packages")


SOUND = "from pycni_plugins.static.plugin import Static\nclass Plugin(Static): pass\n"


def test_a_broken_third_party_package_is_skipped_and_reported(directory: Path, state: Path, packages: Packages) -> None:
    packages.add("acme-sound", SOUND)
    packages.add("acme-broken", "import no_such_module\n")
    packages.add("acme-exits", "raise SystemExit('no licence')\n")
    done = packages.pycni("install", directory, "--no-server", "--state-dir", state)
    assert done.returncode == 0
    assert names(directory) == sorted([*registry.names(), "acme-sound"])
    assert 'acme-broken is not installed: plugin "acme-broken" of acme-broken cannot be loaded' in done.stderr
    assert "acme-exits is not installed" in done.stderr
    asked = packages.pycni("install", directory, "--no-server", "--state-dir", state, "--only", "acme-broken")
    assert asked.returncode == 1
    assert "cannot be loaded" in asked.stderr


def test_installing_again_removes_plugins_that_are_not_registered_any_more(
    directory: Path, state: Path, packages: Packages
) -> None:
    packages.add("acme-sound", SOUND)
    directory.mkdir(parents=True)
    (directory / "acme-sound").write_text(OTHER_PROGRAM)
    packages.pycni("install", directory, "--no-server", "--state-dir", state)
    assert Stub.read(str(directory / "acme-sound"))
    packages.remove("acme-sound")
    packages.pycni("install", directory, "--no-server", "--state-dir", state, "--only", "static")
    assert Stub.read(str(directory / "acme-sound"))
    done = packages.pycni("install", directory, "--no-server", "--state-dir", state)
    assert f"{directory}/acme-sound is removed" in done.stderr
    assert (directory / "acme-sound").read_text() == OTHER_PROGRAM
    assert not (installation.oneshot_directory(directory, state) / "acme-sound").exists()


def test_uninstalling_leaves_nothing(directory: Path, state: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "static").write_text(OTHER_PROGRAM)
    installation.install(directory, state=state)
    assert state.exists()
    installation.uninstall(directory, state)
    assert not state.exists()
    assert names(directory) == ["static"]


def test_the_command_says_what_a_missing_compiler_costs(
    directory: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_COMPILED", Path("/nowhere"))
    done = CliRunner().invoke(install, [str(directory), "--no-server", "--only", "static", "--state-dir", str(state)])
    assert done.exit_code == 0
    assert "the launcher was not compiled" in done.stderr
    assert "each call starts Python" in done.stderr
