"""The systemd units of the server: written whole or not at all, enabled, and removed with the launchers.

systemd itself is not spoken to: it may not be running yet, as in an image, and its units may be another machine's.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pycni.cli import files
from pycni.protocol.errors import CniError

DIRECTORY = Path("/etc/systemd/system")
_MARK = "# The server of pycni for the launchers in "

_SOCKET = """\
[Unit]
Description=Where CNI plugins look for pycni's server

[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
[Unit]
Description=pycni, the resident server of CNI plugins
Requires=pycni.socket
After=pycni.socket
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -P -m pycni serve --socket {socket}
Environment=PYTHONSAFEPATH=1
# A server that begins while pip is at work does not find all its modules.
Restart=on-failure
RestartSec=2
# A stop lets calls end, for 60 s: programs that they have started must not be told to end before.
KillMode=mixed
TimeoutStopSec=90
OOMScoreAdjust=-500

# The server answers only callers of its own mount and user namespace, since paths would not mean the same to others.
# Whatever gives a service a mount namespace of its own is therefore out: ProtectSystem, ProtectHome, PrivateTmp,
# PrivateDevices, ProtectKernelTunables, ProtectKernelModules, ProtectKernelLogs, ProtectControlGroups, ProtectProc,
# ReadWritePaths and their like; so is PrivateUsers. With one of them each call takes the slow way, by itself.
# NET_ADMIN and NET_RAW are the plugins' work, NET_BIND_SERVICE is for the port of DHCP. SYS_ADMIN enters network
# namespaces, SYS_PTRACE sees in which namespaces a caller is that may do more than the server, DAC_OVERRIDE reaches
# files and sysctls that are not root's.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE
NoNewPrivileges=yes
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
# Of @mount, what makes a procfs that is mounted nowhere: settings are found there faster.
SystemCallFilter=fsopen fsconfig fsmount
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_WANTED_BY = {"pycni.service": "multi-user.target", "pycni.socket": "sockets.target"}


@contextmanager
def installed(directory: Path, socket: Path, launchers: Path) -> Iterator[Sequence[Path]]:
    """Write and enable the units, for a server at `socket` of the launchers in that directory; yields their paths.

    An exception inside, or on the way, gives back what was there before. Raises CniError.
    """
    texts = {"pycni.service": _SERVICE, "pycni.socket": _SOCKET}
    python, place = _quoted(Path(sys.executable)), _quoted(socket)
    undo: list[tuple[Path, bytes | None]] = []
    with files.explained(f"cannot install units into {directory}"):
        try:
            for name, text in texts.items():
                unit, link = directory / name, _link(directory, name)
                if unit.exists() and not _is_ours(unit):
                    raise CniError(f"{unit} is not pycni's", details="remove it, or name another --units-dir")
                link.parent.mkdir(parents=True, exist_ok=True)
                undo.append((unit, unit.read_bytes() if unit.exists() else None))
                # A socket's path is the whole value; only % means something there.
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
        for name in reversed(_WANTED_BY):  # first the socket, which would start the service again
            unit = directory / name
            if _is_ours(unit, str(launchers.resolve())):
                _link(directory, name).unlink(missing_ok=True)
                unit.unlink()
                removed.append(unit)
    return removed


def _link(directory: Path, name: str) -> Path:
    """What enables the unit."""
    return directory / f"{_WANTED_BY[name]}.wants" / name


def _is_ours(unit: Path, launchers: str = "") -> bool:
    try:
        first, _, _ = unit.read_text(errors="replace").partition("\n")
    except FileNotFoundError:
        return False
    return first.startswith(_MARK) and launchers in ("", first.removeprefix(_MARK))


def _quoted(path: Path) -> str:
    """A word of a command line (systemd.service(5)). Raises CniError for a path that cannot be one."""
    if not path.is_absolute() or "\n" in str(path):
        raise CniError(f"{str(path)!r} cannot stand in a unit", details="an absolute path is wanted")
    text = os.fspath(path).replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if " " in text or '"' in text else text
