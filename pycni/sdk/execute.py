"""Plugins as executables: how one is found, started, and how its failure is understood (SPEC section 3)."""

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

_BUSY_ATTEMPTS = 6  # an executable that is being written is tried again
_BUSY_PAUSE = 1.0  # seconds


def find_executable(plugin: str, path: Sequence[str]) -> str:
    """The first regular file called `plugin` in the directories of `path` (P-500, P-502). Raises CniError."""
    if not plugin:
        raise CniError("no plugin name provided", details="the configuration lacks a type")
    if "/" in plugin:
        raise CniError(f"invalid plugin name: {plugin}", details="a type is the name of an executable, not a path")
    if not path or list(path) == [""]:
        raise CniError("no paths provided", details="CNI_PATH names the directories with the plugins")
    for directory in path:
        candidate = os.path.join(directory or ".", plugin)  # noqa: PTH118 - pathlib would double the cost of a call
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):  # noqa: PTH116
                return candidate
        except (OSError, ValueError):
            continue
    raise CniError(f'failed to find plugin "{plugin}" in path [{" ".join(path)}]')


def execute(executable: str, env: Mapping[str, str], stdin: bytes, *, deadline: float | None = None) -> bytes:
    """Run a plugin and return what it printed; its stderr goes to ours (P-503 to P-512, P-525).

    `deadline` is in seconds; a plugin that takes longer is killed. Raises CniError with the plugin's own code,
    message and details if it failed, with code 11 if it was killed, with code 0 if it failed without saying why.
    """
    # What may have to be killed is a group of its own; a delegate stays in its plugin's group and dies with it.
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
    # With its children: a delegate that goes on would hold the pipes open, and do work that nobody waits for.
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
        said = f": {_quoted(stderr)}" if stderr else " with no error message"
        return CniError(f"netplugin failed{said}: {ended}", code=Code.UNKNOWN)
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
        raise ValueError("a JSON object is wanted")
    return document
