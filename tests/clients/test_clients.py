"""End-to-end tests with containerd (ctr, and the CRI as kubelet uses it), podman and systemd.

A client is a script in this directory that tests one caller. It runs with a directory of plugins made by
`pycni install`. The environment variable PYCNI_CLIENTS_BIN_DIR names another directory for comparison, such as
/usr/lib/cni.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HERE = Path(__file__).parent
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
NEEDS = {
    "ctr.sh": CONTAINERD,
    "cri.sh": (*CONTAINERD, "curl"),
    "cri-parallel.sh": CONTAINERD,
    "cri-status.sh": CONTAINERD,
    "podman.sh": ("podman", "crun", "conmon", "curl"),
    "podman-rootless.sh": ("podman", "crun", "conmon", "curl", "newuidmap", "slirp4netns"),
    "daemonset.sh": (*CONTAINERD, "curl", "gcc", "patchelf", "pgrep"),
    "systemd.sh": ("/lib/systemd/systemd", "dnsmasq", "gcc", "systemctl"),
}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # of the client scripts
CONTAINERD_2 = Path(sys.prefix) / "peers/usr/bin"  # of a newer Debian, unpacked by scripts/setup
NEEDED_BY_ALL = ("busybox", "ip", "iptables", "nft", "setpriv", "tc", "unshare")
MINUTES = 60  # seconds
DEBIAN_PYTHON = "/usr/bin/python3"
PREFIXES = (Path(sys.prefix), *Path(sys.prefix).parents)  # the environment and the directories above it

# Root of a user namespace can neither start containerd nor chown files to the users of an image.
pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("other_users")]


# Path of the server socket. Each script starts its own server, which must see the same files as its callers.
SOCKET = Path("/run/pycni/pycni.sock")
Executables = Callable[..., AbstractContextManager[Path]]


@pytest.fixture(scope="session", params=["one-shot", "served"])
def bin_directory(request: pytest.FixtureRequest, executables: Executables) -> Iterator[Path]:
    if override := os.environ.get("PYCNI_CLIENTS_BIN_DIR"):
        if request.param == "served":
            pytest.skip(f"{override} has no server")
        yield Path(override)
        return
    with executables(mode=request.param, socket=SOCKET) as directory:
        yield directory


@pytest.fixture(scope="session", params=["one-shot", "served"])
def acme_bin_directory(request: pytest.FixtureRequest, executables: Executables, acme_site: Path) -> Iterator[Path]:
    with executables(mode=request.param, socket=SOCKET, PYTHONPATH=str(acme_site)) as directory:
        yield directory


@pytest.mark.parametrize("client", ["ctr.sh", "cri.sh", "cri-parallel.sh", "podman.sh"])
def test_containers_with_version_1_0_0(client: str, bin_directory: Path) -> None:
    passes(client, bin_directory, CNIVER="1.0.0")


def test_forty_parallel_pods(bin_directory: Path) -> None:
    passes("cri-parallel.sh", bin_directory, CNIVER="1.0.0", PODS="40")


def test_podman_with_the_version_that_it_writes(bin_directory: Path) -> None:
    passes("podman.sh", bin_directory, CNIVER="0.4.0")


if CONTAINERD_2.is_dir():  # Debian 12's supports at most 1.0.0

    @pytest.mark.parametrize("client", ["ctr.sh", "cri.sh", "cri-parallel.sh", "cri-status.sh"])
    def test_containers_with_version_1_1_0(client: str, bin_directory: Path) -> None:
        passes(client, bin_directory, CNIVER="1.1.0", CONTAINERD_DIR=str(CONTAINERD_2))

    @pytest.mark.parametrize("bin_directory", ["served"], indirect=True)  # takes minutes with one-shot processes
    def test_forty_parallel_pods_with_version_1_1_0(bin_directory: Path) -> None:
        passes("cri-parallel.sh", bin_directory, CNIVER="1.1.0", PODS="40", CONTAINERD_DIR=str(CONTAINERD_2))


@pytest.mark.parametrize("client", ["podman.sh", "cri-parallel.sh", "podman-rootless.sh"])
def test_containers_with_a_default_installation(client: str) -> None:
    """No server is started by hand: the first call starts one, in rootless podman's user namespace too."""
    if client == "podman-rootless.sh" and not all(path.stat().st_mode & 0o005 == 0o005 for path in PREFIXES):
        pytest.skip(f"needs an environment that other users can read, not {sys.prefix}")
    with TemporaryDirectory(prefix="pycni-clients-") as name:
        place = Path(name)
        place.chmod(0o755)  # rootless podman executes the plugins
        install = [sys.executable, "-P", "-m", "pycni", "install", place / "bin", "--state-dir", place / "state"]
        subprocess.run([*install, "--units-dir", place / "units"], check=True, stdout=subprocess.DEVNULL)
        passes(client, place / "bin", CNIVER="1.0.0")


def test_ctr_calls_a_third_party_plugin(acme_bin_directory: Path) -> None:
    """The plugin is a distribution of its own, installed by pip and found by `pycni install`."""
    passes("ctr.sh", acme_bin_directory, CNIVER="1.0.0", CHAIN="bridge acme-mtu", ETH0="mtu 1400")


def test_daemonset_installs_plugins_server_and_network_on_a_bare_node(tmp_path: Path) -> None:
    require("daemonset.sh")
    assemble = [HERE.parents[1] / "deploy" / "assemble", tmp_path]
    done = subprocess.run(
        assemble, capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": DEBIAN_PYTHON}
    )
    assert done.returncode == 0, done.stderr
    passes("daemonset.sh", tmp_path)


def test_systemd_starts_the_server_at_the_first_call_and_restarts_it(tmp_path: Path) -> None:
    """Test the units: socket activation, capabilities, system call filter, restarts."""
    passes("systemd.sh", tmp_path)


def test_failure_shows_the_output_of_the_client(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match='failed to find plugin "(bridge|loopback)" in path'):
        passes("cri.sh", tmp_path, CNIVER="1.0.0")


def passes(client: str, bin_directory: Path, **settings: str) -> None:
    """Run a client; fail with its output if it fails."""
    require(client)
    serve = bin_directory.with_name("serve")
    if serve.exists():
        settings["SERVE"] = serve.read_text()
    script = subprocess.Popen(
        [HERE / client, bin_directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **settings},
    )
    try:
        output, _ = script.communicate(timeout=4 * MINUTES)  # less than the timeout of pytest, to keep the output
    except BaseException as interruption:
        script.terminate()  # it then removes its stage
        output, _ = script.communicate()
        if not isinstance(interruption, subprocess.TimeoutExpired):
            raise
    if script.returncode != 0:
        pytest.fail(f"{client} on {bin_directory} with {settings} failed:\n{output}", pytrace=False)


def require(client: str) -> None:
    """Skip if a requirement of the client is missing; with PYCNI_REQUIRE_CLIENTS=1 (CI), fail."""
    missing = [name for name in (*NEEDED_BY_ALL, *NEEDS[client]) if not shutil.which(name, path=PATH)]
    if client.startswith(("cri", "daemonset")) and not importlib.util.find_spec("grpc"):
        missing.append("grpcio")
    if os.geteuid() != 0:
        missing.append("root")
    elif client == "cri.sh" and is_in_chroot():
        missing.append("to run outside a chroot, which `runc exec` would leave")
    if not missing:
        return
    reason = f"{client} needs {', '.join(missing)}: see scripts/setup"
    if os.environ.get("PYCNI_REQUIRE_CLIENTS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def is_in_chroot() -> bool:
    """Return whether the root directory differs from that of the mount namespace, which setns() enters."""
    script = (
        "import ctypes, os\n"
        "root, namespace = os.stat('/'), os.open('/proc/self/ns/mnt', os.O_RDONLY)\n"
        "assert ctypes.CDLL(None).setns(namespace, 0x20000) == 0\n"
        "print(os.path.samestat(root, os.stat('/')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout == "False\n"
