"""Container runtimes installed on this host, and the newest CNI version that each supports.

A runtime passes the cniVersion of a configuration to the plugins. One that is older than this version then rejects the
result of ADD ("unsupported CNI result version") after the attachment has been made.
"""

import re
import subprocess  # noqa: TID251 - asks a runtime for its version
from collections.abc import Iterator
from dataclasses import dataclass

from pycni.kernel import programs

_CNI_1_0, _CNI_1_1 = "1.0.0", "1.1.0"
_DEADLINE = 10.0  # seconds
_VERSION = re.compile(r"\b(\d+)\.(\d+)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class _Line:
    """How a runtime's own version maps to CNI versions: from `since` on it uses a libcni with CNI 1.1.0."""

    program: str
    since: tuple[int, int]


# containerd 2.0 and nerdctl 2.0 use libcni 1.2, the first with CNI 1.1.0. podman 5 has no CNI backend.
_KNOWN = (_Line("containerd", (2, 0)), _Line("nerdctl", (2, 0)), _Line("podman", (5, 0)))


@dataclass(frozen=True, slots=True)
class InstalledRuntime:
    """A container runtime: its name, its version, and the newest CNI version that it supports."""

    name: str
    version: str
    cni_version: str


def installed_runtimes() -> Iterator[InstalledRuntime]:
    """Yield the container runtimes on PATH whose CNI version is known; others are left out."""
    for line in _KNOWN:
        program = programs.find(line.program)
        output = _version_output(program) if program else ""
        if match := _VERSION.search(output):
            own = int(match[1]), int(match[2])
            yield InstalledRuntime(line.program, match[0], _CNI_1_1 if own >= line.since else _CNI_1_0)


def _version_output(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_DEADLINE, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
