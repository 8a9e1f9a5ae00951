"""What tests of executables share."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every plugin of this installation, as executables."""
    directory = tmp_path_factory.mktemp("cni") / "bin"
    command = [sys.executable, "-m", "pycni", "install", directory, "--state-dir", directory.with_name("state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory
