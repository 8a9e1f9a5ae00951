"""Find and run plugin executables, and turn their failures into errors.

See docs/reference/protocol.md#finding-executables and the sections after it.
"""

import errno
import json
import os
import signal
import stat
import subprocess  # noqa: TID251 - the one place where plugins are started
import sys
import threading
from collections.abc import Mapping, Sequence

from pycni.kernel.scheduling import yield_turn
from pycni.protocol import go_json
from pycni.protocol.errors import CniError, Code

_BUSY_ATTEMPTS = 6  # for an executable that is being written (ETXTBSY)
_BUSY_PAUSE = 1.0  # seconds between them


def find_executable(plugin: str, path: Sequence[str]) -> str:
    """Return the first regular file named `plugin` in the directories of `path`. Raises CniError if there is none."""
    if not plugin:
        raise CniError("no plugin name provided", details="set type in the configuration of the plugin")
    if "/" in plugin:
        raise CniError(f"invalid plugin name: {plugin}", details="a type must be the name of an executable, not a path")
    if not path or list(path) == [""]:
        raise CniError("no paths provided", details="set CNI_PATH to the directories of the plugins")
    for directory in path:
        candidate = os.path.join(directory or ".", plugin)  # noqa: PTH118 - pathlib would double the cost of a call
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):  # noqa: PTH116
                return candidate
        except (OSError, ValueError):
            continue
    raise CniError(f'failed to find plugin "{plugin}" in path [{" ".join(path)}]')


def execute(executable: str, env: Mapping[str, str], stdin: bytes, *, deadline: float | None = None) -> bytes:
    """Run a plugin, return its stdout, and pass its stderr on to the stderr of this process.

    `deadline` is in seconds; a plugin that takes longer is killed with its child processes. Raises CniError: with the
    plugin's code, message and details if it printed an error object, with code 11 if it was killed, and with code 0 if
    it failed without an error object.
    """
    # A plugin with a deadline gets its own process group, so that it can be killed with its delegates.
    process = _start(executable, env, process_group=None if deadline is None else 0)
    try:
        with yield_turn():
            stdout, stderr = process.communicate(stdin, deadline)
    except subprocess.TimeoutExpired:
        raise CniError(
            f"plugin {executable} did not answer within {deadline:g} s and was killed", code=Code.TRY_AGAIN_LATER
        ) from None
    finally:
        if process.poll() is None:
            _kill(process)
    if process.returncode == 0 or stdout:
        sys.stderr.write(stderr.decode(errors="replace"))
    if process.returncode != 0:
        raise _failure(stdout, stderr, process.returncode)
    return stdout


def _start(executable: str, env: Mapping[str, str], *, process_group: int | None) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    for attempt in range(_BUSY_ATTEMPTS):
        try:
            return subprocess.Popen(
                [executable], env=dict(env), stdin=pipe, stdout=pipe, stderr=pipe, process_group=process_group
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or attempt == _BUSY_ATTEMPTS - 1:
                cause = os.strerror(error.errno or 0).lower()
                raise CniError(
                    f"netplugin failed with no error message: fork/exec {executable}: {cause}", code=Code.UNKNOWN
                ) from None
            threading.Event().wait(_BUSY_PAUSE)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    # With its children: a delegate that continues would keep the pipes open and change the network unnoticed.
    if os.getpgid(process.pid) == process.pid:
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _failure(stdout: bytes, stderr: bytes, status: int) -> CniError:
    ended = f"exit status {status}" if status > 0 else f"signal: {-status}"
    if not stdout:
        reason = f": {_quoted(stderr)}" if stderr else " with no error message"
        return CniError(f"netplugin failed{reason}: {ended}", code=Code.UNKNOWN)
    try:
        document = go_json.loads(stdout)
        return CniError.from_json({} if document is None else _object(document))
    except ValueError as error:
        return CniError(
            f"netplugin failed but error parsing its diagnostic message {_quoted(stdout)}: {error}", code=Code.UNKNOWN
        )


def _quoted(output: bytes) -> str:
    return json.dumps(output.decode(errors="replace"), ensure_ascii=False)


def _object(document: object) -> dict[str, object]:
    if not isinstance(document, dict):
        raise ValueError("it must be a JSON object")
    return document
