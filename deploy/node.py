"""Entry point of the DaemonSet's container: installs pycni on the node, starts the server, installs the network.

The container is privileged and shares the node's process and network namespaces (hostPID, hostNetwork). It reaches the
node's files through the mount namespace of process 1, and starts the server in that namespace, because the server only
answers callers of its own mount namespace. The node needs no software, and no node directory is mounted.

When the container stops, only the server ends. The launchers then run plugins without it, so pods can be created and
deleted during an upgrade. With REMOVE_ON_STOP=yes, everything is removed in reverse order.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from pycni.cli import files
from pycni.protocol.errors import CniError

HOME = Path(__file__).resolve().parent  # /opt/pycni-node/ID, in the container and on the node
EARLIER_HOME = Path("/opt/pycni")  # contained the versions before; administrators have environments of their own there
CONFIGURATIONS = Path("/etc/pycni/net.d")  # in the container, from the ConfigMap
READY = Path("/ready")  # in the container, for the readiness probe
NET_D = Path("/etc/cni/net.d")
STATE = Path("/var/lib/pycni")
OWN_FILES = STATE / "configurations"  # names of the files in NET_D that this program wrote, one per line
POD_RANGES = "@POD_RANGES@"  # placeholder in a configuration for host-local's "ranges" of the node's pod CIDRs
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONSAFEPATH": "1"}
TIMEOUT = 60  # seconds, for the server to start and for the API to answer
STOPPING = {signal.SIGTERM, signal.SIGINT}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_VERSION_ID = re.compile("[0-9a-f]{12}")  # see `identity` in deploy/assemble
_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Install pycni and run the server until a signal arrives. Return 1 if the server ends by itself."""
    # A signal that arrives during the installation is handled after it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD})
    node = Node()
    configurations = read_configurations()
    node.copy(HOME)
    node.pycni("install", "--no-server", "--state-dir", STATE)  # the server is a process of this container
    server = node.serve()
    node.run(partial(place_configurations, configurations))
    node.run(partial(remove_older, HOME))
    READY.touch()
    while server.poll() is None:
        if signal.sigwait({*STOPPING, signal.SIGCHLD}) in STOPPING:
            break
    else:
        log(f"server ended with status {server.returncode}")
        return 1
    remove = os.environ.get("REMOVE_ON_STOP") == "yes"
    if remove:
        node.run(remove_configurations)
    server.terminate()
    server.wait()
    log("server stopped")
    if remove:
        node.pycni("uninstall", "--state-dir", STATE)
        node.run(remove_home)
    return 0


class Node:
    """The node, accessed through the mount namespace of its process 1."""

    def __init__(self) -> None:
        for kind, setting in (("mnt", "hostPID"), ("net", "hostNetwork")):
            if Path(f"/proc/1/ns/{kind}").samefile(f"/proc/self/ns/{kind}") == (kind == "mnt"):
                sys.exit(f"this container needs {setting}: true")
        self._mounts = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Enter the node's mount namespace. The process must have only one thread."""
        if _libc.setns(self._mounts, _NEWNS) != 0:
            cause = os.strerror(ctypes.get_errno())
            sys.exit(f"cannot enter the node's mount namespace: {cause}; the container must be privileged")

    def run(self, work: Callable[[], None]) -> None:
        """Run a function in a child process in the node's mount namespace. Exit if it fails."""
        pid = os.fork()
        if pid == 0:
            self._run_and_exit(work)
        if os.waitpid(pid, 0)[1] != 0:
            sys.exit(1)

    def _run_and_exit(self, work: Callable[[], None]) -> NoReturn:
        status = 1
        try:
            self.enter()
            work()
            status = 0
        except (CniError, OSError, tarfile.TarError) as error:
            log(str(error))
        finally:
            os._exit(status)

    def copy(self, home: Path) -> None:
        """Copy the directory from the container to the node, completely or not at all."""
        reading, writing = os.pipe()
        sender = os.fork()
        if sender == 0:
            os.close(reading)
            with os.fdopen(writing, "wb") as sending, tarfile.open(fileobj=sending, mode="w|") as archive:
                archive.add(home, ".")
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            self.run(partial(unpack, stream, home))
            os.waitpid(sender, 0)

    def pycni(self, *arguments: str | Path) -> None:
        """Run `pycni` on the node. Exit if it fails."""
        if self._start(*arguments).wait() != 0:
            sys.exit(f"pycni {arguments[0]} failed on the node")

    def serve(self) -> "subprocess.Popen[bytes]":
        """Start the server on the node and wait until it accepts calls."""
        address = f"\0pycni-{os.getpid()}"  # abstract: visible in every mount namespace
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(address)
            told.settimeout(1)
            server = self._start("serve", NOTIFY_SOCKET="@" + address[1:])
            for _ in range(TIMEOUT):
                try:
                    if told.recv(4096) == b"READY=1":
                        log("server is ready")
                        return server
                except TimeoutError:
                    if server.poll() is not None:
                        break
        server.kill()
        sys.exit(f"the server did not start within {TIMEOUT} s")

    def _start(self, *arguments: str | Path, **env: str) -> "subprocess.Popen[bytes]":
        def enter() -> None:
            self.enter()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        command = [HOME / "bin" / "python3", "-P", "-m", "pycni", *arguments]
        return subprocess.Popen(command, env=ENVIRONMENT | env, preexec_fn=enter)  # noqa: PLW1509 - one thread


def read_configurations() -> dict[str, str]:
    """Return the files of the ConfigMap, with the placeholder for the pod CIDRs replaced."""
    found = {path.name: path.read_text() for path in CONFIGURATIONS.glob("*.conf*")}
    ranges = ""
    for name, text in found.items():
        if POD_RANGES in text:
            ranges = ranges or json.dumps([[{"subnet": cidr}] for cidr in pod_cidrs()])
            found[name] = text.replace(f'"{POD_RANGES}"', ranges)
        try:
            json.loads(found[name])
        except ValueError as error:
            sys.exit(f"{name} of the ConfigMap: {error}")
    return found


def pod_cidrs() -> list[str]:
    """Return the CIDRs of this node's pods: POD_CIDRS, else those that the API has for the node NODE_NAME."""
    if given := os.environ.get("POD_CIDRS"):
        return given.split(",")
    address = "{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format_map(os.environ)
    request = urllib.request.Request(
        f"https://{address}/api/v1/nodes/{os.environ['NODE_NAME']}",
        headers={"Authorization": f"Bearer {(SERVICE_ACCOUNT / 'token').read_text()}"},
    )
    trusted = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=trusted) as answer:  # noqa: S310
        cidrs: list[str] = json.load(answer)["spec"].get("podCIDRs", [])
    if not cidrs:
        sys.exit("the node has no podCIDRs: let the cluster allocate them, or set POD_CIDRS")
    return cidrs


def unpack(stream: IO[bytes], home: Path) -> None:
    """Unpack the stream on the node as directory `home`."""
    home.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in home.parent.glob(".*"):
        if _VERSION_ID.fullmatch(unfinished.name[1:]):
            shutil.rmtree(unfinished)
    new = home.with_name(f".{home.name}")
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        archive.extractall(new, numeric_owner=True)  # noqa: S202 - an archive of this image
    os.sync()
    if home.exists():  # the name identifies the contents
        shutil.rmtree(new)
    else:
        new.rename(home)
    log(f"installed {home}")


def place_configurations(configurations: dict[str, str]) -> None:
    """Write the configurations on the node, each atomically, and remove those of earlier versions.

    The names are recorded before the files are written, so that an interrupted run leaves no unknown file.
    """
    NET_D.mkdir(parents=True, exist_ok=True)
    ours = own_configurations()
    for name in configurations:
        if name not in ours and (NET_D / name).exists():
            raise CniError(f"{NET_D / name} is not pycni's", details="choose another file name in the ConfigMap")
    record_own_files({*ours, *configurations})
    for name, text in configurations.items():
        files.place(NET_D / name, partial(Path.write_text, data=text), mode=0o600)
        log(f"installed {NET_D / name}")
    for name in ours - configurations.keys():
        (NET_D / name).unlink(missing_ok=True)
    record_own_files(set(configurations))


def own_configurations() -> set[str]:
    """Return the names of the files in NET_D that this program wrote."""
    return set(OWN_FILES.read_text().split("\n")) - {""} if OWN_FILES.exists() else set()


def record_own_files(names: set[str]) -> None:
    """Record which files in NET_D this program wrote."""
    files.place(OWN_FILES, partial(Path.write_text, data="\n".join(sorted(names))), mode=0o644)


def remove_configurations() -> None:
    """Remove the configurations from the node. The runtime then starts no more pods."""
    for name in sorted(own_configurations()):
        (NET_D / name).unlink(missing_ok=True)
        log(f"removed {NET_D / name}")
    OWN_FILES.unlink(missing_ok=True)


def remove_older(home: Path) -> None:
    """Remove old versions from the node. The previous one stays, because calls may still be using it."""
    others = [path for directory in (home.parent, EARLIER_HOME) for path in versions(directory) if path != home]
    for path in sorted(others, key=lambda path: path.stat().st_ctime)[:-1]:
        shutil.rmtree(path)


def versions(directory: Path) -> list[Path]:
    """Return the directories that this program created in `directory`, and nothing else that is there."""
    found = directory.iterdir() if directory.is_dir() else ()
    return [path for path in found if _VERSION_ID.fullmatch(path.name) and (path / "node.py").is_file()]


def remove_home() -> None:
    """Remove all versions from the node."""
    for directory in (HOME.parent, EARLIER_HOME):
        for path in versions(directory):
            shutil.rmtree(path)
            log(f"removed {path}")
        with suppress(OSError):
            directory.rmdir()  # unless it contains other files


def log(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    # In the node's mount namespace, modules of the container cannot be imported: all imports are at the top.
    sys.exit(main())
