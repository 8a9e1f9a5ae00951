"""Whose turn it is among the threads of a server.

Threads of Python that run at the same time hold each other up at every system call, so calls are answered one after
the other; that takes less time for all together. One thread leads: it waits for calls and answers them, one and the
next, and so stays in the processor's cache. Another is next in line. It takes the lead when the leader steps aside,
because his call has to wait for something, and when he takes too long: no call stops the others.
"""

import threading
import time
from collections import deque

_LONGEST = 0.02  # seconds that others wait for somebody's turn to end


class LeaderFollower:
    """The turns of some threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = _Own()
        self._whose: threading.Lock | None = None  # a thread is known by its gate
        self._idle = False  # whether the leader waits for calls
        self._since = 0.0  # else: since when he is busy
        self._next: threading.Lock | None = None
        self._returning: deque[threading.Lock] = deque()

    def take_first(self) -> bool:
        """Take the lead if it is nobody's."""
        with self._lock:
            if self._whose is not None:
                return False
            self._pass_to(self._own.gate)
            return True

    def take(self) -> bool:
        """For the thread that is next in line and sees a call: wait for the lead; False if the leader sees it too."""
        own, waits = self._own.gate, False
        while True:
            with self._lock:
                if waits and self._next is not own:  # it was passed on to us, just now
                    own.acquire()
                    if self._whose is own:
                        return True
                self._next = None
                if self._whose is None or self._is_late():
                    self._pass_to(own)
                    return True
                if self._idle:
                    return False
                self._next, waits = own, True
            if own.acquire(timeout=_LONGEST):
                return True

    def rest(self) -> bool:
        """The leader has answered and waits for the next call; False if somebody else leads now."""
        with self._lock:
            if self._whose is not self._own.gate:
                return False
            if self._returning:
                self._pass_on()
                return False
            self._idle = True
            return True

    def go_on(self) -> None:
        """There is a call for the leader."""
        with self._lock:
            if self._whose is self._own.gate:
                self._pass_to(self._own.gate)

    def end(self) -> None:
        """Give up the lead, if it is this thread's."""
        with self._lock:
            if self._whose is self._own.gate:
                self._pass_on()

    def come_back(self) -> None:
        """For a call that has waited for something: take the lead as soon as the leader's call ends."""
        own = self._own.gate
        with self._lock:
            if self._whose is None:
                self._pass_to(own)
                return
            if self._idle:
                return
            self._returning.append(own)
        while not own.acquire(timeout=_LONGEST):
            with self._lock:
                if own not in self._returning:  # it was passed on to us, just now
                    own.acquire()
                    return
                if self._is_late():
                    self._returning.remove(own)
                    return

    def _is_late(self) -> bool:
        return not self._idle and time.monotonic() - self._since > _LONGEST

    def _pass_on(self) -> None:
        gate = self._returning.popleft() if self._returning else self._next
        if gate is None:
            self._whose = None
            return
        self._pass_to(gate)
        gate.release()

    def _pass_to(self, gate: threading.Lock) -> None:
        self._whose, self._idle, self._since = gate, False, time.monotonic()
        if self._next is gate:
            self._next = None


class _Own(threading.local):
    """The gate behind which a thread waits until the lead is passed on to it."""

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
