"""A plugin as a process that answers one call: reads environment and stdin, writes stdout, and exits."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from pycni.protocol import version
from pycni.protocol.errors import CniError, Code
from pycni.pydantic_subset import UnsupportedError
from pycni.sdk.dispatch import Response, handle_call
from pycni.sdk.invoke import invoke
from pycni.sdk.plugin import Plugin
from pycni.sdk.registry import load_class

_CHUNK = 1 << 16


class TerminatedBySignal(BaseException):
    """Raised by SIGTERM; the changes of the call are rolled back as it passes."""


def main(name: str, plugin: type[Plugin[Any]]) -> NoReturn:
    """Answer the call in environment and stdin, and exit."""
    _answer_and_exit(name, lambda: plugin, dict(os.environ))


def main_of_entry(
    name: str,
    entry: str,
    env: dict[str, str],
    arguments: Sequence[str] = (),
    *,
    restart_env: dict[str, str] | None = None,
) -> NoReturn:
    """Answer the call with the plugin that `module:Class` names, in the environment `env`, and exit.

    `arguments` follow the name of an executable that is started by hand. `restart_env` is the environment in which this
    process starts again, with pydantic, if the plugin needs that.
    """
    if arguments and (status := load_class(entry, f'plugin "{name}"').run_command(arguments)) is not None:
        sys.exit(status)
    _answer_and_exit(name, lambda: load_class(entry, f'plugin "{name}"'), env, restart_env)


def _answer_and_exit(
    name: str, load: Callable[[], type[Plugin[Any]]], env: dict[str, str], restart_env: dict[str, str] | None = None
) -> NoReturn:
    stdout = redirect_stdout()
    signal.signal(signal.SIGTERM, _terminate)
    stdin: bytes | None = None
    try:
        plugin = load()
        stdin = read_stdin()
        reply = handle_call(name, plugin, env, stdin, invoke)
    except CniError as error:
        reply = Response(error.to_json(version.NEWEST), 1)
    except (TerminatedBySignal, KeyboardInterrupt):
        ended = CniError("the call was ended by a signal and rolled back", code=Code.TRY_AGAIN_LATER)
        reply = Response(ended.to_json(version.NEWEST), 1)
    except UnsupportedError:
        if restart_env is None:
            raise
        _restart(restart_env, stdin, stdout)
    write_and_exit(reply, stdout)


def _restart(env: dict[str, str], stdin: bytes | None, stdout: int) -> NoReturn:
    """Replace this process by a new one that answers the same call. `stdin` is its content, if it was read already."""
    if stdin is not None:
        memory = os.memfd_create("stdin")
        with open(memory, "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, 0)
    os.dup2(stdout, 1)
    os.execve(sys.executable, sys.orig_argv, env)  # noqa: S606 - the same program


def redirect_stdout() -> int:
    """Redirect the stdout of the plugin to stderr, and return a descriptor of the original stdout for the response."""
    try:
        stdout = os.dup(1)
        os.dup2(2, 1)
    except OSError:
        return 1
    return stdout


def read_stdin() -> bytes:
    """Return all of stdin; a closed stdin counts as empty. Raises CniError, code 5, if it cannot be read."""
    chunks = []
    try:
        while chunk := os.read(0, _CHUNK):
            chunks.append(chunk)
    except OSError as error:
        if error.errno == errno.EBADF:
            return b""
        raise CniError(
            f"error reading from stdin: {os.strerror(error.errno or 0).lower()}", code=Code.IO_FAILURE
        ) from None
    return b"".join(chunks)


def write_and_exit(reply: Response, stdout: int) -> NoReturn:
    """Write the response and exit with its status; with status 1 and a message on stderr if it cannot be written."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()  # what the plugin printed, which goes to stderr
    sys.stderr.write(reply.stderr)
    sys.stderr.flush()
    data, status = reply.stdout.encode(), reply.status
    try:
        while data:
            data = data[os.write(stdout, data) :]
    except OSError as error:
        sys.stderr.write(f"Error writing the answer to stdout: {error.strerror}\n")
        sys.stderr.flush()
        status = 1
    os._exit(status)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rollback must not be interrupted
    raise TerminatedBySignal
