"""Call a plugin by its type: in this process or as an executable."""

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
    """Call the plugin with the request, and return the result of ADD.

    Raises CniError as the plugin reports it, and ValueError if an executable prints no valid result.
    """
    executable, plugin = _find(name, request.path)
    if plugin is None:
        stdout = execute(executable, request.env, request.stdin)
        return parse_plugin_result(stdout, request.cni_version) if request.command == "ADD" else None
    try:
        return call_in_process(name, plugin, request, invoke)
    except CniError as error:
        error.forward_unchanged = error.rolled_back = True  # the journal of that call has rolled it back
        raise


def call(name: str, env: Mapping[str, str], stdin: bytes) -> bytes:
    """Call the plugin with this environment and stdin, and return its stdout. Raises CniError as it reports it."""
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
    """Return the path of the plugin's executable, and the plugin class if it is to be called in this process.

    An executable on CNI_PATH takes precedence, since the administrator put it there. If it is a launcher or one-shot
    script of this installation, the plugin is called in this process. Without an executable, the plugin registered in
    this installation is called. Raises CniError if there is none either.
    """
    try:
        executable = find_executable(name, path)
    except CniError:
        if not name or registry.find(name) is None:
            raise
        return "", registry.load(name)
    stub = Stub.read(executable)
    if stub is not None and _is_of_this_installation(stub) and _can_be_loaded(stub):
        return executable, registry.load_class(stub.entry, executable)
    return executable, None


def _is_of_this_installation(stub: Stub) -> bool:
    return stub.interpreter == sys.executable or (bool(stub.path) and set(stub.path) <= set(sys.path))


def _can_be_loaded(stub: Stub) -> bool:
    return not (stub.needs_pydantic and pydantic_subset.in_use)
