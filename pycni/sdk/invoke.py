"""Calling a plugin by its type: the one place where "in process or as an executable" is decided."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from pycni import pydantic_subset
from pycni.protocol import go_json
from pycni.protocol.conversion import VersionedResult, parse_plugin_result
from pycni.protocol.errors import CniError
from pycni.protocol.request import Request
from pycni.sdk import registry
from pycni.sdk.dispatch import call_in_process, handle_call
from pycni.sdk.execute import execute, find_executable
from pycni.sdk.plugin import Plugin
from pycni.sdk.stub import Stub

log = logging.getLogger(__name__)


def invoke(name: str, request: Request) -> VersionedResult | None:
    """Have the plugin do what the request asks; what ADD made. Raises CniError as the plugin says, ValueError."""
    executable, plugin = _find(name, request.path)
    if plugin is None:
        stdout = execute(executable, request.env, request.stdin)
        return parse_plugin_result(stdout, request.cni_version) if request.command == "ADD" else None
    try:
        return call_in_process(name, plugin, request, invoke)
    except CniError as error:
        error.forward_unchanged = error.rolled_back = True  # by its journal
        raise


def call(name: str, env: Mapping[str, str], stdin: bytes) -> bytes:
    """Call the plugin with this environment and return what it printed. Raises CniError as the plugin says."""
    path = env.get("CNI_PATH", "")
    executable, plugin = _find(name, tuple(path.split(":")) if path else ())
    if plugin is None:
        return execute(executable, env, stdin)
    reply = handle_call(name, plugin, env, stdin, invoke)
    sys.stderr.write(reply.stderr)
    log.info("%s", reply.log_line)
    if reply.status != 0:
        raise CniError.from_json(go_json.loads(reply.stdout))
    return reply.stdout.encode()


def _find(name: str, path: tuple[str, ...]) -> tuple[str, type[Plugin[Any]] | None]:
    """Where the plugin's executable is, and its class if it answers in this process.

    An executable on CNI_PATH wins: the administrator decides. If it is a launcher of this very installation, the
    plugin answers in this process. Without an executable, the plugin registered in this installation answers.
    """
    try:
        executable = find_executable(name, path)
    except CniError:
        if not name or registry.find(name) is None:
            raise
        return "", registry.load(name)
    launcher = Stub.read(executable)
    if launcher is not None and _is_of_this_installation(launcher) and _can_be_loaded(launcher):
        return executable, registry.load_class(launcher.entry, executable)
    return executable, None


def _is_of_this_installation(launcher: Stub) -> bool:
    return launcher.interpreter == sys.executable or (bool(launcher.path) and set(launcher.path) <= set(sys.path))


def _can_be_loaded(launcher: Stub) -> bool:
    return not (launcher.needs_pydantic and pydantic_subset.in_use)
