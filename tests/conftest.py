"""What tests of executables share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ACME = Path(__file__).with_name("third_party") / "acme_mtu"


@pytest.fixture(scope="session")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every plugin of this installation, as executables."""
    return _installed(tmp_path_factory.mktemp("cni") / "bin")


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed acme-mtu: a plugin of somebody else's, in its own distribution."""
    source = tmp_path_factory.mktemp("source") / "acme_mtu"
    shutil.copytree(ACME, source)
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def acme_bin_directory(acme_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pycni install` makes where acme-mtu is installed too."""
    return _installed(tmp_path_factory.mktemp("acme") / "bin", PYTHONPATH=str(acme_site))


@pytest.fixture
def use_iptables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a variant of iptables, "nft" or "legacy", the one that the machine has chosen."""

    def use(variant: str) -> None:
        programs = tmp_path / "programs"
        programs.mkdir()
        for family in ("iptables", "ip6tables"):
            for suffix in ("", "-restore", "-save"):
                (programs / f"{family}{suffix}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        # The legacy one takes a lock for the whole machine.
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))

    return use


@pytest.fixture(params=["nft", "legacy"])
def iptables(request: pytest.FixtureRequest, use_iptables: Callable[[str], None]) -> str:
    """Both variants of iptables, each as the one that the machine has chosen."""
    use_iptables(request.param)
    return str(request.param)


def _installed(directory: Path, **env: str) -> Path:
    command = [sys.executable, "-m", "pycni", "install", directory, "--state-dir", directory.with_name("state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return directory
