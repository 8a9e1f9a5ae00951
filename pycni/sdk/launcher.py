"""The executables in a plugin directory: small scripts that start the plugin they are named after.

Their second line is for readers: which plugin, of which installation. So a delegate that is one of them is answered
in process instead of being started.
"""

import json
import os
import shlex
from dataclasses import asdict, dataclass
from typing import Self

_MARK = "# pycni launcher "
_FIRST_LINE_MAX = 200  # bytes; the kernel cuts at 255
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
        """The text of the executable."""
        options = "-IS" if self.path else "-I"
        paths = f"sys.path[:0] = {list(self.path)!r}\n" if self.path else ""
        first, indirect = f"#!{self.interpreter} {options}", ""
        if len(os.fsencode(first)) > _FIRST_LINE_MAX or " " in self.interpreter:
            # The kernel takes neither: sh reads these lines as a command, Python as a string.
            command = f'exec {shlex.quote(self.interpreter)} {options} "$0"'
            first, indirect = "#!/bin/sh", f"''':'\n{command}\n'''\n"
        return (
            f"{first}\n"
            f"{_MARK}{json.dumps(asdict(self))}\n"
            f"{indirect}"
            f"import sys\n{paths}"
            f"from pycni.oneshot import main\n"
            f"main({self.type!r}, {self.entry!r}, {self.versions!r})\n"
        )
