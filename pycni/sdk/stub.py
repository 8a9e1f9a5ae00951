"""The executables in a plugin directory: small scripts that start the plugin they are named after.

Their second line is for readers: which plugin, of which installation. So a delegate that is one of them is answered
in process instead of being started.
"""

import json
import os
import shlex
from dataclasses import asdict, dataclass
from functools import lru_cache

from pycni.protocol import version

_MARK = "# pycni launcher "
_READ = 8192  # bytes; a launcher is shorter
_ELF = b"\x7fELF"
_BINARY_MAX = 4 << 20
# What stands before the settings in the compiled launcher (server/launcher.c).
_SOCKET, _ONESHOT = b"PYCNI-SOCKET=", b"PYCNI-ONESHOT="


@dataclass(frozen=True)
class Stub:
    """What a launcher says of itself: the plugin's class, its versions, and where its packages lie."""

    type: str
    entry: str  # module:Class
    versions: tuple[str, ...]
    interpreter: str
    path: tuple[str, ...]  # directories of the packages; empty if the interpreter finds them by itself
    needs_pydantic: bool = True  # else its models can be declared with pycni.pydantic_subset

    @classmethod
    def read(cls, executable: str) -> "Stub | None":
        """The launcher at this path, or None if it is some other program."""
        try:
            directory, launcher = _read_cached(executable, *_file_identity(executable))
        except OSError:
            return None
        return cls.read(f"{directory}/{os.path.basename(executable)}") if directory else launcher  # noqa: PTH119

    @classmethod
    def from_script(cls, head: bytes) -> "Stub | None":
        """The launcher that begins so, or None if it is some other program."""
        _, _, rest = head.partition(b"\n")
        line, _, _ = rest.partition(b"\n")
        if not line.startswith(_MARK.encode()):
            return None
        try:
            document = json.loads(line[len(_MARK) :])
            return cls(**document | {"versions": tuple(document["versions"]), "path": tuple(document["path"])})
        except (ValueError, TypeError, KeyError):
            return None

    def script(self) -> str:
        """The text of the executable: sh reads the first lines as commands, Python as a string."""
        options = "-IS" if self.path else "-I"
        paths = f"sys.path[:0] = {list(self.path)!r}\n" if self.path else ""
        # By way of sh, since the kernel takes neither blanks nor more than 255 bytes in the first line, and since
        # Python does not start at all with a directory as its stdin. And sh knows what VERSION wants in a tenth of the
        # time; podman asks every plugin of every network.
        return f"""#!/bin/sh
{_MARK}{json.dumps(asdict(self))}
''':'
[ "$CNI_COMMAND" = VERSION ] && {{ printf %s {shlex.quote(version.encode_reply(self.versions))}; exit; }}
[ -d /dev/stdin ] && exec </dev/null
exec {shlex.quote(self.interpreter)} {options} "$0" "$@"
'''
import sys
{paths}from pycni.oneshot import main
main({self.type!r}, {self.entry!r}, needs_pydantic={self.needs_pydantic})
"""


def configure_launcher(binary: bytes, *, socket: str, oneshot_directory: str) -> bytes:
    """The compiled launcher with these places in it. Raises ValueError for a place that is too long."""
    for name, room, value in ((_SOCKET, 256, socket), (_ONESHOT, 1024, oneshot_directory)):
        setting = name + os.fsencode(value) + b"\0"
        if len(setting) > room:
            raise ValueError(f"{value} is too long for a launcher")
        start = binary.index(name)
        binary = binary[:start] + setting.ljust(room, b"\0") + binary[start + room :]
    return binary


def _file_identity(executable: str) -> tuple[int, int, int, int]:
    """What another program in its place would not have too. Raises OSError."""
    status = os.stat(executable)  # noqa: PTH116 - pathlib would cost more than the call
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=64)
def _read_cached(executable: str, *_identity: int) -> tuple[str, Stub | None]:
    """Where a compiled launcher finds the scripts, or the launcher that a script is; neither if it is another program.

    Raises OSError.
    """
    with open(executable, "rb") as file:  # noqa: PTH123 - pathlib would cost more than the call
        head = file.read(_READ)
        if not head.startswith(_ELF):
            return "", Stub.from_script(head)
        _, found, rest = (head + file.read(_BINARY_MAX)).partition(_ONESHOT)
    return os.fsdecode(rest.partition(b"\0")[0]) if found else "", None
