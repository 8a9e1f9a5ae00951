"""The keeper as a process of its own, with the flags of Go's `dhcp daemon`, or as a thread of the resident server."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pycni.sdk import CniError, passed_listener, unix_listener

from .config import SOCKET
from .conversation import is_served
from .keeper import Keeper
from .store import Store
from .timing import Timing

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0  # seconds, for who waits until another keeper ends
_DEL_TAKES = 2.0  # seconds at most, when it must do without a keeper
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def main(words: Sequence[str]) -> int:
    """Keep leases until SIGTERM or SIGINT; the exit status. Raises SystemExit for flags that are none."""
    flags = _flags(words)
    path = Path(flags.hostprefix + flags.socketpath)
    timing = Timing(flags.timeout, flags.resendmax, flags.resendtimeout, flags.lookevery, flags.broadcast)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger().setLevel(logging.INFO)
    try:
        with _place(path, _DEL_TAKES) as listener:
            if listener is None:
                print(f"Error getting listener: another keeper of DHCP leases listens at {path}", file=sys.stderr)
                return 1
            with _pidfile(flags.pidfile):
                keeper = Keeper(Store.beside(path), timing, flags.hostprefix)
                asyncio.run(_until_signal(keeper, listener))
    except (CniError, OSError) as error:
        print(f"dhcp daemon: {error}", file=sys.stderr)
        return 1
    return 0


def _flags(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "dhcp daemon", description="Keep the leases of the dhcp plugin.", allow_abbrev=False
    )
    for name, default, kind, meaning in (
        ("pidfile", "", _absolute, "write the process id there"),
        ("hostprefix", "", str, "where the host's file system is, for sockets and namespaces"),
        ("socketpath", SOCKET, str, "where plugins find the keeper"),
        ("timeout", 10.0, _duration, "how long one attempt to get a lease may take (default 10s)"),
        ("resendmax", 62.0, _duration, "the longest pause between two attempts (default 62s)"),
        ("resendtimeout", 208.0, _duration, "how long all attempts together may take (default 208s)"),
        ("lookevery", 10.0, _duration, "how often to look whether interfaces are still there (default 10s)"),
    ):
        parser.add_argument(f"-{name}", f"--{name}", default=default, type=kind, help=meaning)
    parser.add_argument(
        "-broadcast",
        "--broadcast",
        nargs="?",
        const=True,
        default=False,
        type=_boolean,
        help="ask for broadcast answers",
    )
    return parser.parse_args(words)


def _absolute(text: str) -> str:
    if text and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text} is no absolute path")
    return text


def _duration(text: str) -> float:
    """Seconds, of a duration as Go writes it: 1m30s, 500ms."""
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise argparse.ArgumentTypeError(f"{text} is no duration such as 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false") from None


@contextmanager
def _place(path: Path, patience: float = 0.0) -> Iterator[socket.socket | None]:
    """The socket of the one keeper that may listen at the path; None if there is another one for so many seconds."""
    with Store.beside(path).locked(patience) as free:
        if not free:
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


async def _until_signal(keeper: Keeper, listener: socket.socket) -> None:
    task = asyncio.create_task(keeper.run(listener))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await _end_of(task)


@contextmanager
def resident(path: Path) -> Iterator[None]:
    """Keep leases in a thread of this process; where another keeper is at work, from when that one ends."""
    stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    ready = threading.Event()
    thread = threading.Thread(target=_keep_in_thread, args=(path, stop, ready), name="dhcp keeper", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(stop)


def _keep_in_thread(path: Path, stop: int, ready: threading.Event) -> None:
    said = False
    while not select.select([stop], [], [], 0 if not said else _LOOK_EVERY)[0]:
        try:
            with _place(path) as listener:
                if listener is not None:
                    ready.set()
                    log.info("keeping DHCP leases at %s", path)
                    asyncio.run(_until_written(stop, Keeper(Store.beside(path), Timing()), listener))
                    return
            if not said:
                log.info("another keeper of DHCP leases listens at %s", path)
        except (CniError, OSError) as error:
            if not said:
                log.warning("cannot keep DHCP leases: %s", error)
        said = True
        ready.set()


async def _until_written(stop: int, keeper: Keeper, listener: socket.socket) -> None:
    task = asyncio.create_task(keeper.run(listener))
    asyncio.get_running_loop().add_reader(stop, task.cancel)
    await _end_of(task)


async def _end_of(task: "asyncio.Task[None]") -> None:
    try:
        await task
    except asyncio.CancelledError:
        log.info("the DHCP keeper ends; its leases stay for the next one")
