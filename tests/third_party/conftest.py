"""A plugin of somebody else's, in a distribution of its own, installed by pip beside pycni."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed acme-mtu."""
    source = tmp_path_factory.mktemp("source") / "acme_mtu"
    shutil.copytree(Path(__file__).with_name("acme_mtu"), source)
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def bin_dir(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin directory made by `pycni install` where acme-mtu is installed too."""
    directory = tmp_path_factory.mktemp("bin")
    subprocess.run(
        [Path(sys.executable).with_name("pycni"), "install", directory, "--state-dir", directory.with_name("state")],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    return directory
