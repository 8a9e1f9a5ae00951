"""The wheel: built from a copy of the checkout, as `pip install .` builds it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("LICENSE", "README.md", "plugins", "pycni", "pyproject.toml", "setup.py")

pytestmark = pytest.mark.exhaustive


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    for name in SOURCES:
        origin = CHECKOUT / name
        copy = shutil.copytree if origin.is_dir() else shutil.copy2
        copy(origin, directory / name)
    return directory


def build(source: Path) -> Path:
    """Build a wheel with the setuptools of this environment, and return its path."""
    output = source.parent / "wheels"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        output,
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = output.iterdir()
    return wheel


def test_wheel_is_for_every_python_3_and_contains_the_launcher(source: Path) -> None:
    wheel = build(source)
    assert "-py3-none-manylinux" in wheel.name
    assert "pycni/server/launcher" in zipfile.ZipFile(wheel).namelist()


def test_second_build_does_not_contain_modules_that_were_deleted(source: Path) -> None:
    deleted = source / "pycni" / "cli" / "deleted.py"
    deleted.write_text("")
    assert "pycni/cli/deleted.py" in zipfile.ZipFile(build(source)).namelist()
    deleted.unlink()
    assert "pycni/cli/deleted.py" not in zipfile.ZipFile(build(source)).namelist()
