"""Ways to run the lease daemon: as a process with the flags of Go's `dhcp daemon`, or as a thread of the server."""

import argparse
import asyncio
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pycni.sdk import CniError, passed_listener, unix_listener

from .config import SOCKET
from .daemon_protocol import is_served
from .lease_daemon import LeaseDaemon
from .lease_store import LeaseStore
from .timing import Timing

log = logging.getLogger(__name__)

_RETRY_INTERVAL = 5.0  # seconds between checks whether another lease daemon has ended
_LOCK_TIMEOUT = 2.0  # seconds; a DEL without a daemon holds the lock for less
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def main(words: Sequence[str]) -> int:
    """Run the lease daemon until SIGTERM or SIGINT. Return the exit status. Raise SystemExit for invalid flags."""
    flags = _flags(words)
    path = Path(flags.hostprefix + flags.socketpath)
    timing = Timing(flags.timeout, flags.resendmax, flags.resendtimeout, flags.lookevery, flags.broadcast)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger().setLevel(logging.INFO)
    try:
        with _listener(path, _LOCK_TIMEOUT) as listener:
            if listener is None:
                print(f"Error getting listener: another DHCP lease daemon listens at {path}", file=sys.stderr)
                return 1
            with _pidfile(flags.pidfile):
                daemon = LeaseDaemon(LeaseStore.beside(path), timing, flags.hostprefix)
                asyncio.run(_run_until_signal(daemon, listener))
    except (CniError, OSError) as error:
        print(f"dhcp daemon: {error}", file=sys.stderr)
        return 1
    return 0


def _flags(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "dhcp daemon", description="Acquire and renew DHCP leases for the dhcp plugin.", allow_abbrev=False
    )
    for name, default, kind, meaning in (
        ("pidfile", "", _absolute_path, "write the process id to this file (absolute path)"),
        ("hostprefix", "", str, "path of the host's root directory, for the socket and network namespaces"),
        ("socketpath", SOCKET, str, "path of the socket for the plugin"),
        ("timeout", 10.0, _duration, "timeout of one attempt, from DISCOVER to ACK (default 10s)"),
        ("resendmax", 62.0, _duration, "longest pause between two attempts (default 62s)"),
        ("resendtimeout", 208.0, _duration, "timeout of all attempts of an ADD (default 208s)"),
        ("lookevery", 10.0, _duration, "interval at which the existence of interfaces is checked (default 10s)"),
    ):
        parser.add_argument(f"-{name}", f"--{name}", default=default, type=kind, help=meaning)
    parser.add_argument(
        "-broadcast",
        "--broadcast",
        nargs="?",
        const=True,
        default=False,
        type=_boolean,
        help="set the broadcast flag, so that servers broadcast their answers",
    )
    return parser.parse_args(words)


def _absolute_path(text: str) -> str:
    if text and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text} is not an absolute path")
    return text


def _duration(text: str) -> float:
    """Return the seconds of a duration in Go's format, such as 1m30s or 500ms."""
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise argparse.ArgumentTypeError(f"{text} is not a duration such as 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false") from None


@contextmanager
def _listener(path: Path, timeout: float = 0.0) -> Iterator[socket.socket | None]:
    """Yield the listening socket, and hold the lock of the lease store. Yield None if another daemon has either.

    A socket passed by systemd is used. Wait up to `timeout` seconds for the lock.
    """
    with LeaseStore.beside(path).locked(timeout) as acquired:
        if not acquired:
            yield None
        elif passed := passed_listener():
            with passed:
                yield passed
        elif is_served(str(path)):
            yield None
        else:
            with unix_listener(path) as listener:
                yield listener


@contextmanager
def _pidfile(path: str) -> Iterator[None]:
    if not path:
        yield
        return
    file = Path(path)
    file.write_text(str(os.getpid()))
    file.chmod(0o644)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


async def _run_until_signal(daemon: LeaseDaemon, listener: socket.socket) -> None:
    task = asyncio.create_task(daemon.run(listener))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await _wait_for_end(task)


@contextmanager
def background_service(path: Path) -> Iterator[Callable[[], bool]]:
    """Run the lease daemon in a thread of this process. If another one is running, start when that ends.

    Yield a function that returns whether this daemon holds leases.
    """
    stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    ready, listening = threading.Event(), threading.Event()
    arguments = path, stop, ready, listening
    thread = threading.Thread(target=_run_in_thread, args=arguments, name="dhcp lease daemon", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield lambda: listening.is_set() and any(LeaseStore.beside(path).records())
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(stop)


def _run_in_thread(path: Path, stop: int, ready: threading.Event, listening: threading.Event) -> None:
    waiting = False
    while not select.select([stop], [], [], _RETRY_INTERVAL if waiting else 0)[0]:
        try:
            with _listener(path) as listener:
                if listener is not None:
                    listening.set()
                    ready.set()
                    log.info("the DHCP lease daemon listens at %s", path)
                    asyncio.run(_run_until_written(stop, LeaseDaemon(LeaseStore.beside(path), Timing()), listener))
                    return
            if not waiting:
                log.info("another DHCP lease daemon listens at %s; waiting for its end", path)
        except (CniError, OSError) as error:
            if not waiting:
                log.warning("cannot start the DHCP lease daemon: %s", error)
        waiting = True
        ready.set()


async def _run_until_written(stop: int, daemon: LeaseDaemon, listener: socket.socket) -> None:
    task = asyncio.create_task(daemon.run(listener))
    asyncio.get_running_loop().add_reader(stop, task.cancel)
    await _wait_for_end(task)


async def _wait_for_end(task: "asyncio.Task[None]") -> None:
    try:
        await task
    except asyncio.CancelledError:
        log.info("the DHCP lease daemon ends; the next one continues its leases")
