"""nftables in process: scripts run by libnftables, one transaction each, without an exec (0.1 ms instead of 3.5)."""

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

# The library waits for the kernel by select(): its socket must be among the first 1024 descriptors, else the C library
# ends the process. That many other threads may be opened between our look and its socket.
_DESCRIPTORS, _MARGIN = 1024, 128


class NftError(CniError):
    """A transaction was refused: something is `missing`, `exists` already, or is `busy`, that is in use.

    Or it was `interrupted`: others changed the ruleset while it read there.
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
    """Neither libnftables nor the program nft is on this machine."""

    def __init__(self) -> None:
        super().__init__(
            f"nftables is not available: neither {_LIBRARY} nor the program nft was found",
            details="install the package libnftables1 or nftables",
        )


class Nft(Protocol):
    """Runs scripts in the namespace in which it was made."""

    def run(self, script: str) -> str:
        """One transaction; returns what a listing printed. Raises NftError."""

    def listing(self, command: str) -> list[dict[str, Any]]:
        """The objects that a list command prints. Raises NftError."""

    def close(self) -> None:
        """Give its socket back."""


# Contexts are not for themselves: libnftables (1.0.6) has one cache of interface names a process, which each run frees
# at its end, and tables that come with the first context and go with the last, under the feet of the others. So no two
# threads are in the library at once. The kernel takes one transaction a namespace at a time anyway.
_alone = threading.Lock()


class Library:
    """libnftables, by its small C interface."""

    def __init__(self) -> None:
        self._library = _load()
        with _alone:
            self._context = self._library.nft_ctx_new(0)
            self._library.nft_ctx_buffer_output(self._context)
            self._library.nft_ctx_buffer_error(self._context)

    def run(self, script: str) -> str:
        """See Nft."""
        return _uninterrupted(lambda: self._run(script))

    def _run(self, script: str) -> str:
        with _alone:
            status = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
            said = self._library.nft_ctx_get_error_buffer if status else self._library.nft_ctx_get_output_buffer
            text = said(self._context).decode(errors="replace")
        if status != 0:
            raise NftError(script, text)
        return str(text)

    def listing(self, command: str) -> list[dict[str, Any]]:
        """See Nft."""
        self._library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT)
        try:
            text = self.run(command)
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        return _objects(text)

    def close(self) -> None:
        """See Nft."""
        with _alone:
            self._library.nft_ctx_free(self._context)


class Program:
    """The program nft, one process a transaction, where the library is missing."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def run(self, script: str) -> str:
        """See Nft."""
        return _uninterrupted(lambda: self._nft(["-f", "-"], script))

    def listing(self, command: str) -> list[dict[str, Any]]:
        """See Nft."""
        return _objects(_uninterrupted(lambda: self._nft(["-j", *command.split()], "")))

    def close(self) -> None:
        """See Nft."""

    def _nft(self, arguments: list[str], stdin: str) -> str:
        import subprocess  # 5 ms that the library spares

        program = programs.find(_PROGRAM)
        if program is None:
            raise NftUnavailableError
        with self._netns.entered(), yield_turn(briefly=True):
            done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NftError(stdin, done.stderr)
        return done.stdout


def opened(netns: NetnsHandle) -> Nft:
    """Nftables of the namespace behind the door. Raises NftUnavailableError."""
    return netns.opened(_open)


def is_installed() -> bool:
    """Whether this machine has libnftables or the program nft."""
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
        with netns.entered():
            return Library()
    except OSError:
        return Program(netns)


def _next_descriptor() -> int:
    descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)  # the lowest that is free
    os.close(descriptor)
    return descriptor


def _program_instead(netns: NetnsHandle) -> Program:
    if programs.find(_PROGRAM) is None:
        raise CniError(
            f"too many files are open: libnftables works with the first {_DESCRIPTORS} alone",
            code=Code.TRY_AGAIN_LATER,
            details=f"so it is once other calls have ended, or with the program {_PROGRAM}",
        )
    return Program(netns)


def _uninterrupted(run: Callable[[], str]) -> str:
    """Run it again as long as it is interrupted; libnftables does so when it lists, but not when it gets an element."""
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
