"""One-shot scripts: executables that start a Python process which answers one call of a plugin.

The second line of a script describes plugin and installation as JSON. A plugin that delegates to such an executable
reads it and calls the plugin in its own process.
"""

import json
import os
import shlex
from dataclasses import asdict, dataclass
from functools import lru_cache

from pycni.protocol import version
from pycni.protocol.errors import CniError, Code
from pycni.sdk.upgrade import MESSAGE, REMEDY

_MARK = "# pycni launcher "
_MAX_SCRIPT = 8192  # bytes
_ELF = b"\x7fELF"
_MAX_LAUNCHER = 4 << 20  # bytes
# These precede the settings in the binary of the launcher (server/launcher.c).
_SOCKET, _ONESHOT, _SERVER = b"PYCNI-SOCKET=", b"PYCNI-ONESHOT=", b"PYCNI-SERVER="


@dataclass(frozen=True)
class Stub:
    """The description in a one-shot script: the plugin, its versions and its installation."""

    type: str  # the name of the executable
    entry: str  # module:Class
    versions: tuple[str, ...]
    interpreter: str
    path: tuple[str, ...]  # directories of the packages; empty if the interpreter finds them itself
    needs_pydantic: bool = True  # False: its models can be declared with pycni.pydantic_subset

    @classmethod
    def read(cls, executable: str) -> "Stub | None":
        """Return the description in the script at this path, or in the script of the launcher at this path.

        None if it is another program or does not exist.
        """
        script = cls.script_path(executable)
        if script:
            return cls.read(script)
        try:
            return _read_cached(executable, *_file_identity(executable))[1]
        except OSError:
            return None

    @staticmethod
    def script_path(executable: str) -> str:
        """Return the path of the script that the launcher at this path executes, "" if it is not a launcher."""
        try:
            directory, _ = _read_cached(executable, *_file_identity(executable))
        except OSError:
            return ""
        return f"{directory}/{os.path.basename(executable)}" if directory else ""  # noqa: PTH119

    @classmethod
    def from_script(cls, head: bytes) -> "Stub | None":
        """Return the description in a script that begins with `head`, or None if it is another program."""
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
        """Return the text of the script: sh runs the first lines, which Python reads as a string."""
        options = "-IS" if self.path else "-I"
        paths = f"sys.path[:0] = {list(self.path)!r}\n" if self.path else ""
        interpreter = shlex.quote(self.interpreter)
        # sh starts Python, because the kernel allows neither spaces nor more than 255 bytes in the path on the first
        # line, and because Python does not start if stdin is a directory. sh also answers VERSION in a tenth of the
        # time; podman asks every plugin of every network for it.
        return f"""#!/bin/sh
{_MARK}{json.dumps(asdict(self))}
''':'
[ "$CNI_COMMAND" = VERSION ] && {{ printf %s {shlex.quote(version.encode_reply(self.versions))}; exit; }}
[ -d /dev/stdin ] && exec </dev/null
[ -x {interpreter} ] || {{ printf %s {shlex.quote(_missing_interpreter(self.interpreter))}; exit 1; }}
exec {interpreter} {options} "$0" "$@"
'''
import sys
{paths}try:
    from pycni.oneshot import main
    main({self.type!r}, {self.entry!r}, needs_pydantic={self.needs_pydantic})
except Exception as error:
    import json, os, traceback
    if not os.environ.get("CNI_COMMAND"):
        raise
    traceback.print_exc()
    answer = {{"cniVersion": {version.NEWEST!r}, "code": {Code.TRY_AGAIN_LATER:d}, "msg": {MESSAGE!r}}}
    answer["details"] = f"{{type(error).__name__}}: {{error}}; {REMEDY}"
    print(json.dumps(answer, indent=4))
    sys.exit(1)
"""


def is_launcher(executable: str) -> bool:
    """Return whether the program at this path is a launcher, or a one-shot script, of any installation of pycni."""
    return bool(Stub.script_path(executable)) or Stub.read(executable) is not None


def _missing_interpreter(path: str) -> str:
    """Return the error object of a script whose Python does not exist."""
    error = CniError(
        f"pycni's Python interpreter {path} is missing",
        code=Code.TRY_AGAIN_LATER,
        details="pycni is being installed, or its environment was removed: run `pycni install` of an existing one",
    )
    return error.to_json(version.NEWEST)


def configure_launcher(binary: bytes, *, socket: str, oneshot_directory: str, server_script: str) -> bytes:
    """Return the binary of the launcher with the path of the server's socket and the directory of the one-shot scripts.

    `server_script` starts an on-demand server; "" for no such server.

    Raises ValueError if a path is too long.
    """
    settings = ((_SOCKET, 256, socket), (_ONESHOT, 1024, oneshot_directory), (_SERVER, 1024, server_script))
    for name, size, value in settings:
        setting = name + os.fsencode(value) + b"\0"
        if len(setting) > size:
            raise ValueError(f"the path {value} is too long for the launcher: at most {size - len(name) - 1} bytes")
        start = binary.index(name)
        binary = binary[:start] + setting.ljust(size, b"\0") + binary[start + size :]
    return binary


def _file_identity(executable: str) -> tuple[int, int, int, int]:
    """Return what changes if the file is replaced or written. Raises OSError."""
    status = os.stat(executable)  # noqa: PTH116 - pathlib would cost more than the call
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=64)
def _read_cached(executable: str, *_identity: int) -> tuple[str, Stub | None]:
    """Return the script directory of a launcher, or the description in a script; neither for another program.

    Raises OSError.
    """
    with open(executable, "rb") as file:  # noqa: PTH123 - pathlib would cost more than the call
        head = file.read(_MAX_SCRIPT)
        if not head.startswith(_ELF):
            return "", Stub.from_script(head)
        _, found, rest = (head + file.read(_MAX_LAUNCHER)).partition(_ONESHOT)
    return os.fsdecode(rest.partition(b"\0")[0]) if found else "", None
