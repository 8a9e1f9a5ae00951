"""A lock on a network namespace, which needs no lock file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.scheduling import lock_file
from pycni.protocol.errors import CniError, Code

TIMEOUT = 30  # seconds
_PAUSE = 0.002  # seconds between two attempts


@contextmanager
def locked(netns: NetnsHandle, doing: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the namespace; with `shared`, other holders of a shared lock are let in.

    `doing` is a phrase for the error, as in "changing iptables". Raises CniError, code 11, after 30 seconds.

    The lock is an flock on the namespace file itself. So there is no lock file to leave behind, and namespaces do not
    block each other.
    """
    # Another open file description than that of the handle: other threads of this process are locked out, too.
    fd = os.open(f"/proc/thread-self/fd/{netns.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not lock_file(fd, TIMEOUT, shared=shared, first_pause=_PAUSE, longest_pause=_PAUSE):
            raise CniError(
                f"another plugin has been {doing} for {TIMEOUT} s",
                code=Code.TRY_AGAIN_LATER,
                details="it holds the lock on the network namespace; `lslocks` shows which process it is",
            )
        yield
    finally:
        os.close(fd)
