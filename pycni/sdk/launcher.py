"""The executables in a plugin directory: small scripts that start the plugin they are named after.

Their second line is for readers: which plugin, of which installation. So a delegate that is one of them is answered
in process instead of being started.
"""

import json
import shlex
from dataclasses import asdict, dataclass
from typing import Self

_MARK = "# pycni launcher "
_READ = 8192  # bytes; a launcher is shorter


@dataclass(frozen=True)
class Launcher:
    """What a launcher says of itself: the plugin's class, its versions, and where its packages lie."""

    type: str
    entry: str  # module:Class
    versions: tuple[str, ...]
    interpreter: str
    path: tuple[str, ...]  # directories of the packages; empty if the interpreter finds them by itself

    @classmethod
    def read(cls, executable: str) -> Self | None:
        """The launcher at this path, or None if it is some other program."""
        try:
            with open(executable, "rb") as file:  # noqa: PTH123 - pathlib would double the cost of a call
                head = file.read(_READ)
        except OSError:
            return None
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
        # Python does not start at all with a directory as its stdin.
        return f"""#!/bin/sh
{_MARK}{json.dumps(asdict(self))}
''':'
[ -d /dev/stdin ] && exec </dev/null
exec {shlex.quote(self.interpreter)} {options} "$0"
'''
import sys
{paths}from pycni.oneshot import main
main({self.type!r}, {self.entry!r}, {self.versions!r})
"""
