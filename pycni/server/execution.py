"""Execution of one call in a thread, or a forked process, of the server."""

import io
import os
import sys
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from pycni.kernel.netns.handle import move_thread_to
from pycni.sdk.dispatch import Response, handle_call
from pycni.sdk.invoke import invoke
from pycni.sdk.plugin import Plugin
from pycni.server.wire import Call

_call_stderr: ContextVar[io.StringIO | None] = ContextVar("call_stderr", default=None)


def enter_netns(call: Call) -> None:
    """Move this thread to the caller's network namespace, if the call needs it. Raises OSError."""
    if call.needs_files:
        move_thread_to(call.host)


def execute(plugin: type[Plugin[Any]], call: Call) -> Response:
    """Execute the call in the network namespace of this thread.

    The stderr of the response begins with what the plugin and its delegates wrote to stderr or stdout.
    """
    token = _call_stderr.set(io.StringIO())
    try:
        reply = handle_call(call.type, plugin, call.env, call.stdin, invoke, netns=call.container, host=call.host)
        written = _call_stderr.get()
        return replace(reply, stderr=written.getvalue() + reply.stderr) if written else reply
    finally:
        _call_stderr.reset(token)


def redirect_output() -> None:
    """Send what a plugin prints during a call to its caller's stderr; all other output goes to the server's stderr."""
    log_file = io.TextIOWrapper(os.fdopen(os.dup(2), "wb", buffering=0), write_through=True)
    sys.stdout = sys.stderr = _PerCallStream(log_file)
    os.dup2(2, 1)


class _PerCallStream(io.TextIOBase):
    """A stream that separates threads: text written during a call goes to its caller, other text to the log."""

    def __init__(self, log_file: io.TextIOBase) -> None:
        self._log_file = log_file

    def write(self, text: str, /) -> int:
        """Write the text."""
        call_stderr = _call_stderr.get()
        return self._log_file.write(text) if call_stderr is None else call_stderr.write(text)

    def flush(self) -> None:
        """Do nothing: neither target is buffered."""
