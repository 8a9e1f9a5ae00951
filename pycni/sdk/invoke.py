"""Calling a plugin by its type: the one place where "in process or as an executable" is decided."""

import sys
from collections.abc import Mapping
from typing import Any

from pycni.protocol import dialect
from pycni.protocol.errors import CniError
from pycni.sdk import registry
from pycni.sdk.execute import execute, find_executable
from pycni.sdk.launcher import Launcher
from pycni.sdk.plugin import Plugin
from pycni.sdk.respond import answer


def invoke(name: str, env: Mapping[str, str], stdin: bytes) -> bytes:
    """Call the plugin with this environment and return what it printed. Raises CniError as the plugin says.

    An executable on CNI_PATH wins: the administrator decides. If it is a launcher of this very installation, the
    plugin answers in this process. Without an executable, the plugin registered in this installation answers.
    """
    path = env.get("CNI_PATH", "")
    try:
        executable = find_executable(name, path.split(":") if path else [])
    except CniError:
        if not name or registry.find(name) is None:
            raise
        return _in_process(name, registry.load(name), env, stdin)
    launcher = Launcher.read(executable)
    if launcher is not None and _is_of_this_installation(launcher):
        return _in_process(name, registry.load_class(launcher.entry, executable), env, stdin)
    return execute(executable, env, stdin)


def _is_of_this_installation(launcher: Launcher) -> bool:
    return launcher.interpreter == sys.executable or (bool(launcher.path) and set(launcher.path) <= set(sys.path))


def _in_process(name: str, plugin: type[Plugin[Any]], env: Mapping[str, str], stdin: bytes) -> bytes:
    reply = answer(name, plugin, env, stdin, invoke)
    sys.stderr.write(reply.stderr)
    if reply.status != 0:
        error = CniError.from_json(dialect.loads(reply.stdout))
        error.undone = True  # by its journal
        raise error
    return reply.stdout.encode()
