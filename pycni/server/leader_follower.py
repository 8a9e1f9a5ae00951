"""Leader/Followers thread pool: one leader thread waits for calls and answers them; followers replace it if it blocks.

This is the Leader/Followers pattern (Schmidt et al., Pattern-Oriented Software Architecture, volume 2), with one
difference: the leader keeps the leadership while it answers a call. Threads of one Python interpreter that run at the
same time delay each other at every system call, so answering calls one after the other is faster for all of them, and
the same thread keeps the processor's caches warm. The leader gives the leadership up while its call waits for something
outside of this process, and loses it after `_TURN_LIMIT`, so that no call blocks the others.
"""

import threading
import time
from collections import deque

_TURN_LIMIT = 0.02  # seconds after which a follower replaces a leader that is still answering a call


class LeaderFollower:
    """The leadership among the worker threads of one process. Threads are identified by their gate (`_ThreadGate`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = _ThreadGate()
        self._leader: threading.Lock | None = None
        self._leader_is_idle = False  # the leader waits for a call
        self._busy_since = 0.0  # if it is not idle
        self._next: threading.Lock | None = None  # the follower that has seen a call
        self._resuming: deque[threading.Lock] = deque()  # threads that continue a call after a wait

    def lead_if_vacant(self) -> bool:
        """Become the leader if there is none, and return whether this thread leads."""
        with self._lock:
            if self._leader is not None:
                return False
            self._promote(self._own.gate)
            return True

    def wait_for_lead(self) -> bool:
        """Wait for the leadership, as the follower that has seen a call.

        Return False if the leader is idle, since it sees the same call.
        """
        own, waits = self._own.gate, False
        while True:
            with self._lock:
                if waits and self._next is not own:  # this thread was promoted after the time-out
                    own.acquire()
                    if self._leader is own:
                        return True
                self._next = None
                if self._leader is None or self._leader_is_late():
                    self._promote(own)
                    return True
                if self._leader_is_idle:
                    return False
                self._next, waits = own, True
            if own.acquire(timeout=_TURN_LIMIT):
                return True

    def set_idle(self) -> bool:
        """Mark the leader as waiting for the next call. Return False if this thread does not lead any more."""
        with self._lock:
            if self._leader is not self._own.gate:
                return False
            if self._resuming:
                self._hand_over()
                return False
            self._leader_is_idle = True
            return True

    def set_busy(self) -> None:
        """Mark the leader as answering a call, from now on."""
        with self._lock:
            if self._leader is self._own.gate:
                self._promote(self._own.gate)

    def resign(self) -> None:
        """Give up the leadership, if this thread has it."""
        with self._lock:
            if self._leader is self._own.gate:
                self._hand_over()

    def resume(self) -> None:
        """Wait for the leadership to continue a call after a wait; followers come later.

        Return without it if the leader is idle or late: then the call continues at the same time as the leader's.
        """
        own = self._own.gate
        with self._lock:
            if self._leader is None:
                self._promote(own)
                return
            if self._leader_is_idle:
                return
            self._resuming.append(own)
        while not own.acquire(timeout=_TURN_LIMIT):
            with self._lock:
                if own not in self._resuming:  # this thread was promoted after the time-out
                    own.acquire()
                    return
                if self._leader_is_late():
                    self._resuming.remove(own)
                    return

    def _leader_is_late(self) -> bool:
        return not self._leader_is_idle and time.monotonic() - self._busy_since > _TURN_LIMIT

    def _hand_over(self) -> None:
        gate = self._resuming.popleft() if self._resuming else self._next
        if gate is None:
            self._leader = None
            return
        self._promote(gate)
        gate.release()

    def _promote(self, gate: threading.Lock) -> None:
        self._leader, self._leader_is_idle, self._busy_since = gate, False, time.monotonic()
        if self._next is gate:
            self._next = None


class _ThreadGate(threading.local):
    """A lock per thread, which stays locked; another thread releases it to wake this one as the new leader."""

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
