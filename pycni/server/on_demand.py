"""The on-demand server: started in the background by the first call that finds no server, ends when it is not used.

`pycni install` creates the script that starts it, STATE/servers/KEY, and puts its path into the launcher. A launcher
that finds no server becomes the one-shot process, and leaves a child behind that executes the script once that process
has ended (start_server in launcher.c). There is one server for each user namespace, plugin directory and installation
of pycni:

    DIRECTORY/KEY-INODE.sock   its socket; INODE is that of the user namespace
    DIRECTORY/KEY-INODE.log    its stderr; locked (flock) as long as it runs

DIRECTORY is the one of the installation's socket, /run/pycni, or $XDG_RUNTIME_DIR/pycni in a user namespace. Only root
of the user namespace may write there.
"""

import json
import os
import select
import shlex
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.sdk.unix_socket import peer_credentials
from pycni.server import namespaces, wire

_STATUS_TIMEOUT = 5.0  # seconds
_STOP_TIMEOUT = 90.0  # seconds; a server that ends waits for its calls
_STDERR = 2
_NICER = 10  # see nice(2)


@dataclass(frozen=True)
class OnDemand:
    """The process of an on-demand server. Its stderr is the locked log."""

    socket: Path
    script: Path

    @classmethod
    def start(cls, path: Path, script: Path) -> "OnDemand":
        """Leave the namespaces of the caller (see `namespaces.leave_callers`). The process must have one thread."""
        namespaces.leave_callers([path.parent, script, Path(os.__file__), Path(__file__)])
        return cls(path, script)

    @property
    def command(self) -> list[str]:
        """The command that starts this server again."""
        return [str(self.script), str(self.socket)]

    @property
    def has_run_directory(self) -> bool:
        """Whether plugins find background services of this server: in user namespaces, /run is not what it seems."""
        return namespaces.is_first_user_namespace()

    def reason_to_end(self) -> str:
        """Return why the server has to end, "" if it has not."""
        for path in (self.script, self.socket):
            if not path.exists():
                return f"{path} was removed"
        return ""

    def end(self) -> None:
        """Remove the log, unless another server has created a new one. The process must end after that."""
        log = self.socket.with_suffix(".log")
        with suppress(FileNotFoundError):
            if os.path.samestat(log.stat(), os.fstat(_STDERR)):
                log.unlink()


@contextmanager
def raised_priority() -> Iterator[None]:
    """Prefer this process to others during its start, if it may.

    The call that starts a server is often the first of many. While it starts, each of them is a one-shot process, and
    with dozens of those it would take its half a second of CPU time only when they are over.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, max(before - _NICER, -20))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


_SOCKETS = "# Its sockets are in "


def start_script(interpreter: str, path: Sequence[str], directory: Path, idle_timeout: float) -> str:
    """Return the text of the script for launchers whose installation has its socket in the directory.

    `path` are directories of packages that the interpreter does not find itself.
    """
    code = f"import sys; sys.path[:0] = {list(path)!r}; from pycni.cli import main; main()"
    command = shlex.join([interpreter, "-I", "-c", code, "serve", "--idle-timeout", f"{idle_timeout:g}"])
    return f"""#!/bin/sh
# Starts the on-demand server of pycni for the launchers in one plugin directory.
{_SOCKETS}{directory}
exec {command} --socket "$1" --on-demand "$0"
"""


def leftover_files(script: Path) -> list[Path]:
    """Return the files that servers started by this script have left behind, as when they were killed."""
    try:
        lines = script.read_text().splitlines()
    except FileNotFoundError:
        return []
    directories = [line.removeprefix(_SOCKETS) for line in lines if line.startswith(_SOCKETS)]
    return [path for directory in directories for path in Path(directory).glob(f"{script.name}-*")]


@dataclass(frozen=True)
class RunningServer:
    """A server that has sent its status."""

    socket: Path
    pid: int
    status: dict[str, Any]

    @classmethod
    def find(cls, path: Path) -> "RunningServer | None":
        """Ask the server at the socket. None if there is none that answers, or it belongs to another user."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_STATUS_TIMEOUT)
            try:
                connection.connect(str(path))
                peer = peer_credentials(connection)
                if not peer.is_trusted:
                    return None
                connection.sendall(struct.pack("=IIII", wire.MAGIC_STATUS, 0, 0, 0))
                with connection.makefile("rb") as reply:
                    status = json.loads(reply.read())
                # The peer is the process that called listen(). If it is the server, its id is the one in our namespace.
                return cls(path, status["pid"] if status["started_by"] == "systemd" else peer.pid, status)
            except (OSError, ValueError, KeyError, TypeError):
                return None


def running_processes(key: str = "") -> dict[int, Path]:
    """Return the sockets of the on-demand servers that /proc shows, or of those with this key, by process id.

    They may be in mount namespaces in which this process cannot reach their sockets.
    """
    found: dict[int, tuple[int, Path]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = os.fsdecode((entry / "cmdline").read_bytes()).split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        if "--on-demand" in arguments and "--socket" in arguments:
            path = Path(arguments[arguments.index("--socket") + 1])
            if path.name.startswith(key):
                found[int(entry.name)] = parent, path
    return {pid: path for pid, (parent, path) in found.items() if parent not in found}  # without its worker processes


def stop(pid: int) -> bool:
    """Send SIGTERM to a process and wait for its end. Return False if it has not ended in time. Raises OSError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        return bool(select.select([pidfd], [], [], _STOP_TIMEOUT)[0])
    finally:
        os.close(pidfd)
