"""What the DaemonSet's container does: pycni onto the node, its server there, the network configuration last.

The container has the node's process and network namespace (hostPID, hostNetwork) and is privileged: so it reaches the
node's files through the mount namespace of process 1, and starts the server there, where its callers are. Nothing of
the node is needed for it, and nothing of the node is mounted into the container.

When it is stopped, only the server ends: launchers then do without, and pods come and go while the DaemonSet is
upgraded. With REMOVE_ON_STOP=yes everything is removed, in the other order.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from pycni.cli import files
from pycni.protocol.errors import CniError

HOME = Path(__file__).resolve().parent  # the same on the node: /opt/pycni/ID
CONFIGURATIONS = Path("/etc/pycni/net.d")  # in the container, from the ConfigMap
READY = Path("/ready")  # in the container, for the probe
NET_D = Path("/etc/cni/net.d")
STATE = Path("/var/lib/pycni")
OURS = STATE / "configurations"  # the names of our files in NET_D, one a line
POD_RANGES = "@POD_RANGES@"  # in a configuration: host-local's "ranges" for the node's pod CIDRs
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONSAFEPATH": "1"}
PATIENCE = 60  # seconds for the server to begin
STOPPING = {signal.SIGTERM, signal.SIGINT}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Install, serve until told to stop; 1 if the server ends by itself."""
    # A signal that comes meanwhile waits for the installation to be whole.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGCHLD})
    node = Node()
    configurations = read_configurations()
    node.receive(HOME)
    node.pycni("install", "--state-dir", STATE)
    server = node.serve()
    node.do(partial(place_configurations, configurations))
    node.do(partial(remove_older, HOME))
    READY.touch()
    while server.poll() is None:
        if signal.sigwait({*STOPPING, signal.SIGCHLD}) in STOPPING:
            break
    else:
        say(f"the server has ended with {server.returncode}")
        return 1
    remove = os.environ.get("REMOVE_ON_STOP") == "yes"
    if remove:
        node.do(remove_configurations)
    server.terminate()
    server.wait()
    say("the server has ended")
    if remove:
        node.pycni("uninstall", "--state-dir", STATE)
        node.do(remove_home)
    return 0


class Node:
    """The node, by the mount namespace of its first process."""

    def __init__(self) -> None:
        for kind, setting in (("mnt", "hostPID"), ("net", "hostNetwork")):
            if Path(f"/proc/1/ns/{kind}").samefile(f"/proc/self/ns/{kind}") == (kind == "mnt"):
                sys.exit(f"this container lacks {setting}: true")
        self._mounts = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Move this process, which must have but one thread, to the node's files."""
        if _libc.setns(self._mounts, _NEWNS) != 0:
            sys.exit(f"cannot enter the node's mount namespace: {os.strerror(ctypes.get_errno())}; is it privileged?")

    def do(self, work: Callable[[], None]) -> None:
        """Have a child do this among the node's files; exits if it fails."""
        pid = os.fork()
        if pid == 0:
            self._work(work)
        if os.waitpid(pid, 0)[1] != 0:
            sys.exit(1)

    def _work(self, work: Callable[[], None]) -> NoReturn:
        status = 1
        try:
            self.enter()
            work()
            status = 0
        except (CniError, OSError, tarfile.TarError) as error:
            say(str(error))
        finally:
            os._exit(status)

    def receive(self, home: Path) -> None:
        """Copy the directory from the container, whole or not at all."""
        reading, writing = os.pipe()
        sender = os.fork()
        if sender == 0:
            os.close(reading)
            with os.fdopen(writing, "wb") as sending, tarfile.open(fileobj=sending, mode="w|") as archive:
                archive.add(home, ".")
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            self.do(partial(unpack, stream, home))
            os.waitpid(sender, 0)

    def pycni(self, *arguments: str | Path) -> None:
        """Run the command on the node; exits if it fails."""
        if self._start(*arguments).wait() != 0:
            sys.exit(f"pycni {arguments[0]} failed on the node")

    def serve(self) -> "subprocess.Popen[bytes]":
        """Start the server on the node and wait until it answers."""
        address = f"\0pycni-{os.getpid()}"  # abstract: seen from every mount namespace
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(address)
            told.settimeout(1)
            server = self._start("serve", NOTIFY_SOCKET="@" + address[1:])
            for _ in range(PATIENCE):
                try:
                    if told.recv(4096) == b"READY=1":
                        say("the server is there")
                        return server
                except TimeoutError:
                    if server.poll() is not None:
                        break
        server.kill()
        sys.exit("the server does not begin")

    def _start(self, *arguments: str | Path, **env: str) -> "subprocess.Popen[bytes]":
        def enter() -> None:
            self.enter()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        command = [HOME / "bin" / "python3", "-m", "pycni", *arguments]
        return subprocess.Popen(command, env=ENVIRONMENT | env, preexec_fn=enter)  # noqa: PLW1509 - one thread


def read_configurations() -> dict[str, str]:
    """The ConfigMap's files, complete."""
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
    """Which addresses the cluster gives to this node's pods: POD_CIDRS, or what the API says of the node NODE_NAME."""
    if given := os.environ.get("POD_CIDRS"):
        return given.split(",")
    address = "{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format_map(os.environ)
    request = urllib.request.Request(
        f"https://{address}/api/v1/nodes/{os.environ['NODE_NAME']}",
        headers={"Authorization": f"Bearer {(SERVICE_ACCOUNT / 'token').read_text()}"},
    )
    trusted = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=PATIENCE, context=trusted) as answer:  # noqa: S310
        cidrs: list[str] = json.load(answer)["spec"].get("podCIDRs", [])
    if not cidrs:
        sys.exit("the node has no podCIDRs: let the cluster allocate them, or set POD_CIDRS")
    return cidrs


def unpack(stream: IO[bytes], home: Path) -> None:
    """On the node: what the stream has as `home`."""
    home.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in home.parent.glob(".*"):
        shutil.rmtree(unfinished)
    new = home.with_name(f".{home.name}")
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        archive.extractall(new, numeric_owner=True)  # noqa: S202 - it is our own
    os.sync()
    if home.exists():  # as this very version always was
        shutil.rmtree(new)
    else:
        new.rename(home)
    say(f"{home} is there")


def place_configurations(configurations: dict[str, str]) -> None:
    """On the node: each whole, the names written down before; what is ours of earlier times goes."""
    NET_D.mkdir(parents=True, exist_ok=True)
    ours = own_configurations()
    for name in configurations:
        if name not in ours and (NET_D / name).exists():
            raise CniError(f"{NET_D / name} is not pycni's", details="name the file in the ConfigMap otherwise")
    write_down({*ours, *configurations})
    for name, text in configurations.items():
        files.place(NET_D / name, partial(Path.write_text, data=text), mode=0o600)
        say(f"{NET_D / name} is there")
    for name in ours - configurations.keys():
        (NET_D / name).unlink(missing_ok=True)
    write_down(set(configurations))


def own_configurations() -> set[str]:
    return set(OURS.read_text().split("\n")) - {""} if OURS.exists() else set()


def write_down(names: set[str]) -> None:
    files.place(OURS, partial(Path.write_text, data="\n".join(sorted(names))), mode=0o644)


def remove_configurations() -> None:
    """On the node: from now on runtimes start no pods."""
    for name in sorted(own_configurations()):
        (NET_D / name).unlink(missing_ok=True)
        say(f"{NET_D / name} is removed")
    OURS.unlink(missing_ok=True)


def remove_older(home: Path) -> None:
    """On the node: all versions but this one and the one before, by which calls may still be answered."""
    others = sorted((path for path in home.parent.iterdir() if path != home), key=lambda path: path.stat().st_ctime)
    for path in others[:-1]:
        shutil.rmtree(path)


def remove_home() -> None:
    """On the node: every version, and the scripts that start it."""
    shutil.rmtree(STATE / "oneshot", ignore_errors=True)
    shutil.rmtree(HOME.parent)
    say(f"{HOME.parent} is removed")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    # Among the node's files nothing more can be imported: child processes have loaded what they need.
    sys.exit(main())
