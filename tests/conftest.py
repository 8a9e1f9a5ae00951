"""What tests of executables share, and what they ask of the kernel."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from pycni.kernel import containerlink
from pycni.protocol.errors import CniError
from pycni.testing.world import Netns

CARDS = "02:63:6e:69:00:0"  # how the addresses of those begin that scripts/guest gives its machine
ACME = Path(__file__).with_name("third_party") / "acme_mtu"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only tests with needs_kernel are wanted, import no file without: in the guest that takes its time."""
    if config.option.markexpr == "needs_kernel" and collection_path.name.startswith("test_"):
        sources = [source for source in (collection_path, collection_path.with_name("conftest.py")) if source.exists()]
        return None if any("needs_kernel" in source.read_text() for source in sources) else True
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this kernel cannot do; scripts/test --guest does it in one that can."""
    wanted = [feature for marker in item.iter_markers("needs_kernel") for feature in marker.args]
    try:
        missing = [feature for feature in wanted if not _kernel_has(feature)]
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    if missing:
        pytest.skip(f"needs a kernel with {', '.join(missing)}")


@pytest.fixture
def kernel_has() -> Callable[[str], bool]:
    """Whether the kernel has a feature: a kind of links, or "bridge VLAN filtering", "sctp", "selinux", "cards"."""
    return _kernel_has


@cache
def _kernel_has(feature: str) -> bool:
    if feature == "sctp":
        return _has_sctp()
    if feature == "cards":
        return any(path.read_text().startswith(CARDS) for path in Path("/sys/class/net").glob("*/address"))
    if feature == "selinux":
        return Path("/sys/fs/selinux").is_dir()
    with closing(Netns()) as netns:
        if feature == "bridge VLAN filtering":
            netns.run("ip link add br0 type bridge; ip link set br0 type bridge vlan_filtering 1", check=False)
            (bridge,) = netns.json("ip -j -d link show br0")
            return bool(bridge["linkinfo"]["info_data"]["vlan_filtering"])
        try:
            containerlink.probe(netns.door, feature)
        except CniError:
            return False
        return True


def _has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


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
