"""The systemd units of the server: they are written and enabled with the launchers, and removed with them.

They may be written where systemd is not running, as in an image. Only units in the standard directory are started and
stopped: others may belong to another machine.
"""

import os
import subprocess  # noqa: TID251 - systemctl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pycni.cli import files
from pycni.protocol.errors import CniError

DIRECTORY = Path("/etc/systemd/system")
RESTART = "systemctl daemon-reload && systemctl restart pycni.socket pycni.service"
STOP = "systemctl stop pycni.socket pycni.service; systemctl daemon-reload"
_MARK = "# The server of pycni for the launchers in "

_SOCKET = """\
[Unit]
Description=Socket of the resident server of pycni's CNI plugins

[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
[Unit]
Description=Resident server of pycni's CNI plugins
Requires=pycni.socket
After=pycni.socket
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -P -m pycni serve --socket {socket}
Environment=PYTHONSAFEPATH=1
# While pip replaces modules, a server may fail to start.
Restart=on-failure
RestartSec=2
# The server stops after the calls in progress, at most 60 s. Programs that they have started must not be stopped first.
KillMode=mixed
TimeoutStopSec=90
OOMScoreAdjust=-500

# The server executes only calls of callers in its own mount and user namespaces, since the same path may name another
# file in others. So do not add what gives a service a mount namespace of its own: ProtectSystem, ProtectHome,
# PrivateTmp, PrivateDevices, ProtectKernelTunables, ProtectKernelModules, ProtectKernelLogs, ProtectControlGroups,
# ProtectProc, ReadWritePaths and the like; nor PrivateUsers. With one of them the server would refuse each call.
# Plugins need NET_ADMIN and NET_RAW, DHCP needs NET_BIND_SERVICE for its port. SYS_ADMIN is for entering network
# namespaces, SYS_PTRACE for comparing the namespaces of a caller with more capabilities, and DAC_OVERRIDE for files and
# sysctls of other users.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE
NoNewPrivileges=yes
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
# These create an instance of procfs that is not mounted anywhere, in which sysctls are found faster.
SystemCallFilter=fsopen fsconfig fsmount
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_WANTED_BY = {"pycni.service": "multi-user.target", "pycni.socket": "sockets.target"}


@contextmanager
def installed(directory: Path, socket: Path, launchers: Path) -> Iterator[Sequence[Path]]:
    """Write and enable the units of a server at `socket`, for the launchers in that directory, and yield their paths.

    Restore the earlier files if an exception is raised in the context. Raises CniError.
    """
    texts = {"pycni.service": _SERVICE, "pycni.socket": _SOCKET}
    python, place = _quoted(Path(sys.executable)), _quoted(socket)
    undo: list[tuple[Path, bytes | None]] = []
    with files.explained(f"cannot install units into {directory}"):
        try:
            for name, text in texts.items():
                unit, link = directory / name, _link(directory, name)
                if unit.exists() and not _is_ours(unit):
                    raise CniError(
                        f"{unit} exists and is not a unit of pycni", details="remove it, or use another --units-dir"
                    )
                link.parent.mkdir(parents=True, exist_ok=True)
                undo.append((unit, unit.read_bytes() if unit.exists() else None))
                # The path of a socket is the whole value of its setting, in which only % has to be quoted.
                where = place if name == "pycni.service" else str(socket).replace("%", "%%")
                content = f"{_MARK}{launchers.resolve()}\n{text.format(python=python, socket=where)}"
                files.place(unit, partial(Path.write_text, data=content), mode=0o644)
                if not link.is_symlink():
                    undo.append((link, None))
                    link.symlink_to(f"../{name}")
            yield [directory / name for name in texts]
        except BaseException:
            for path, before in reversed(undo):
                path.unlink(missing_ok=True)
                if before is not None:
                    path.write_bytes(before)
            raise


def uninstall(directory: Path, launchers: Path) -> list[Path]:
    """Disable and remove the units, if they are for the launchers in that directory. Raises CniError."""
    removed = []
    with files.explained(f"cannot uninstall units from {directory}"):
        units = [directory / name for name in reversed(_WANTED_BY)]  # first the socket, which would start the service
        own = [unit for unit in units if _is_ours(unit, str(launchers.resolve()))]
        if own:
            _systemctl(directory, "stop", *(unit.name for unit in own))
        for unit in own:
            _link(directory, unit.name).unlink(missing_ok=True)
            unit.unlink()
            removed.append(unit)
    return removed


def are_free(directory: Path, launchers: Path) -> bool:
    """Return whether no unit in the directory belongs to the launchers in another directory, or to another program."""
    units = [directory / name for name in _WANTED_BY]
    return all(_is_ours(unit, str(launchers.resolve())) for unit in units if unit.exists())


def systemd_is_running() -> bool:
    """Return whether systemd is the init process (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def restart(directory: Path) -> bool:
    """Start the server with the units in the directory, or restart it. Return False if that must be done by hand."""
    return reload(directory) and _systemctl(directory, "restart", "pycni.socket", "pycni.service")


def reload(directory: Path) -> bool:
    """Have systemd read the units in the directory. Return False if that must be done by hand."""
    return _systemctl(directory, "daemon-reload")


def _systemctl(directory: Path, *arguments: str) -> bool:
    """Run systemctl if it concerns this machine's systemd, and return whether it has succeeded."""
    if directory != DIRECTORY or not systemd_is_running():
        return False
    try:
        return subprocess.run(["systemctl", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _link(directory: Path, name: str) -> Path:
    """Return the symbolic link that enables the unit."""
    return directory / f"{_WANTED_BY[name]}.wants" / name


def _is_ours(unit: Path, launchers: str = "") -> bool:
    try:
        first, _, _ = unit.read_text(errors="replace").partition("\n")
    except FileNotFoundError:
        return False
    return first.startswith(_MARK) and launchers in ("", first.removeprefix(_MARK))


def _quoted(path: Path) -> str:
    """Return the path as a word of a command line (systemd.service(5)). Raises CniError if that is impossible."""
    if not path.is_absolute() or "\n" in str(path):
        raise CniError(f"{str(path)!r} cannot be used in a unit", details="use an absolute path without line breaks")
    text = os.fspath(path).replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if " " in text or '"' in text else text
