"""One at a time in a network namespace, without a file of our own."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError, Code

PATIENCE = 30  # seconds
_PAUSE = 0.002  # seconds between two attempts


@contextmanager
def locked(netns: NetnsHandle, doing: str, *, shared: bool = False) -> Iterator[None]:
    """Keep others of ours out while this is done, `doing` as in "changing iptables". Raises CniError, code 11.

    With `shared` only those are kept out who do not share it.

    What is locked (flock) is the file of the namespace itself, so there is no file to leave behind, and namespaces do
    not wait for each other.
    """
    fd = os.open(f"/proc/thread-self/fd/{netns.fd}", os.O_RDONLY | os.O_CLOEXEC)  # opened anew: our threads compete too
    try:
        deadline = time.monotonic() + PATIENCE
        while not _take(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise CniError(
                    f"another plugin has been {doing} for {PATIENCE} s",
                    code=Code.TRY_AGAIN_LATER,
                    details="it holds the lock on the network namespace; `lslocks` names it",
                )
            with yield_turn(briefly=True):  # who has the lock may wait for his turn
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)


def _take(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
