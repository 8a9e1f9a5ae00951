"""nft scripts, run in this process by libnftables: each is one transaction, in 0.1 ms instead of 3.5 with an exec.

Where the library is missing, the program nft runs them.
"""

import ctypes
import json
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from pycni.kernel import programs
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError, Code

_LIBRARY, _PROGRAM = "libnftables.so.1", "nft"
_JSON_OUTPUT = 1 << 4
_ATTEMPTS = 32

# libnftables calls select() on its socket. With a descriptor of 1024 or more, the C library aborts the process. The
# margin is for descriptors that other threads open between the check and the creation of the socket.
_DESCRIPTORS, _MARGIN = 1024, 128


class NftError(CniError):
    """nftables refused a script.

    missing: an object does not exist.
    exists: an object exists already.
    busy: an object is in use.
    interrupted: another process changed the ruleset while it was being listed.
    """

    def __init__(self, script: str, complaint: str) -> None:
        first, *_ = complaint.strip().splitlines() or ["no reason given"]
        super().__init__(f"nftables refused: {first}")
        self.script = script
        self.complaint = complaint
        self.missing = "No such file or directory" in complaint
        self.exists = "File exists" in complaint
        self.busy = "Device or resource busy" in complaint
        self.interrupted = "Interrupted system call" in complaint


class NftUnavailableError(CniError):
    """Neither libnftables nor the program nft is installed."""

    def __init__(self) -> None:
        super().__init__(
            f"nftables is not available: neither {_LIBRARY} nor the program nft was found",
            details="install the package libnftables1 or nftables",
        )


class Nft(Protocol):
    """Runs nft scripts in one network namespace."""

    def run(self, script: str) -> str:
        """Run the script as one transaction, and return what its list commands print. Raises NftError."""

    def listing(self, command: str) -> list[dict[str, Any]]:
        """Return the objects that a list command prints, from nft's JSON. Raises NftError."""

    def close(self) -> None:
        """Close its socket."""


# libnftables (1.0.6) is not thread-safe, even with one context per thread. All contexts share a cache of interface
# names, which each run frees at its end, and tables that exist from the first context to the last. So only one thread
# at a time calls the library. The kernel runs one transaction per namespace at a time anyway.
_library_lock = threading.Lock()


class Library:
    """A context of libnftables, bound to the namespace of the thread that creates it."""

    def __init__(self) -> None:
        self._library = _load()
        with _library_lock:
            self._context = self._library.nft_ctx_new(0)
            self._library.nft_ctx_buffer_output(self._context)
            self._library.nft_ctx_buffer_error(self._context)

    def run(self, script: str) -> str:
        return _retry_interrupted(lambda: self._run(script))

    def _run(self, script: str) -> str:
        with _library_lock:
            status = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
            buffer = self._library.nft_ctx_get_error_buffer if status else self._library.nft_ctx_get_output_buffer
            text = buffer(self._context).decode(errors="replace")
        if status != 0:
            raise NftError(script, text)
        return str(text)

    def listing(self, command: str) -> list[dict[str, Any]]:
        self._library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT)
        try:
            text = self.run(command)
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        return _objects(text)

    def close(self) -> None:
        with _library_lock:
            self._library.nft_ctx_free(self._context)


class Program:
    """The program nft: one process per script."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def run(self, script: str) -> str:
        return _retry_interrupted(lambda: self._nft(["-f", "-"], script))

    def listing(self, command: str) -> list[dict[str, Any]]:
        return _objects(_retry_interrupted(lambda: self._nft(["-j", *command.split()], "")))

    def close(self) -> None:
        """Do nothing: no process outlives its script."""

    def _nft(self, arguments: list[str], stdin: str) -> str:
        import subprocess  # takes 5 ms, and is not needed with the library

        program = programs.find(_PROGRAM)
        if program is None:
            raise NftUnavailableError
        with self._netns.enter(), yield_turn(briefly=True):
            done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NftError(stdin, done.stderr)
        return done.stdout


def opened(netns: NetnsHandle) -> Nft:
    """Return the nftables of the namespace, opened on first use. Raises NftUnavailableError."""
    return netns.get_or_open(_open)


def is_installed() -> bool:
    """Return whether libnftables or the program nft is installed."""
    try:
        return bool(_load())
    except OSError:
        return programs.find(_PROGRAM) is not None


def probe(netns: NetnsHandle) -> None:
    """Raise CniError, code 50, unless nftables works in the namespace."""
    try:
        opened(netns).run("list tables")
    except CniError as error:
        raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None


def _open(netns: NetnsHandle) -> Nft:
    if _next_descriptor() >= _DESCRIPTORS - _MARGIN:
        return _program_instead(netns)
    try:
        with netns.enter():
            return Library()
    except OSError:
        return Program(netns)


def _next_descriptor() -> int:
    descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # the kernel assigns the lowest free one
    os.close(descriptor)
    return descriptor


def _program_instead(netns: NetnsHandle) -> Program:
    if programs.find(_PROGRAM) is None:
        raise CniError(
            f"too many files are open: libnftables needs a descriptor below {_DESCRIPTORS}",
            code=Code.TRY_AGAIN_LATER,
            details=f"try again when other calls have ended, or install the program {_PROGRAM}",
        )
    return Program(netns)


def _retry_interrupted(run: Callable[[], str]) -> str:
    """Call `run` again while it is interrupted. libnftables itself does so for lists, but not for single elements."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return run()
        except NftError as error:
            if not error.interrupted:
                raise
    return run()


def _objects(text: str) -> list[dict[str, Any]]:
    return list(json.loads(text)["nftables"]) if text.strip() else []


@cache
def _load() -> Any:
    library = ctypes.CDLL(_LIBRARY)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("nft_ctx_new", pointer, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [pointer]),
        ("nft_ctx_buffer_output", number, [pointer]),
        ("nft_ctx_buffer_error", number, [pointer]),
        ("nft_ctx_get_output_buffer", text, [pointer]),
        ("nft_ctx_get_error_buffer", text, [pointer]),
        ("nft_ctx_output_set_flags", None, [pointer, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", number, [pointer, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
