"""Counters of calls in memory that all processes of a server share."""

import mmap
import struct
import threading
import time

_SLOT = struct.Struct("=QQd")  # calls begun, calls ended, time of the last change (time.monotonic())


class Activity:
    """The calls of all processes of a server. Create it before they are forked."""

    def __init__(self, processes: int) -> None:
        self._memory = mmap.mmap(-1, processes * _SLOT.size)
        self._slots = [Slot(self._memory, number * _SLOT.size) for number in range(processes)]
        self._started = time.monotonic()

    def slot(self, number: int) -> "Slot":
        """Return the counters of a process."""
        return self._slots[number]

    @property
    def calls(self) -> int:
        """The calls that have ended."""
        return sum(ended for _, ended, _ in self._read())

    @property
    def in_progress(self) -> int:
        """The calls that have not ended."""
        return sum(begun - ended for begun, ended, _ in self._read())

    @property
    def idle(self) -> float:
        """Seconds since the last call ended, or since the start; 0 during a call."""
        if self.in_progress:
            return 0.0
        return time.monotonic() - max(self._started, *(changed for _, _, changed in self._read()))

    def _read(self) -> list[tuple[int, int, float]]:
        return [_SLOT.unpack_from(self._memory, number * _SLOT.size) for number in range(len(self._slots))]


class Slot:
    """The counters of one process; only that process changes them."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory, self._offset, self._lock = memory, offset, threading.Lock()

    def begin(self) -> None:
        """Count a call that begins."""
        self._add(1, 0)

    def end(self) -> None:
        """Count a call that ends."""
        self._add(0, 1)

    def abandon(self) -> None:
        """Count all calls of a process that has died as ended."""
        begun, _, _ = _SLOT.unpack_from(self._memory, self._offset)
        _SLOT.pack_into(self._memory, self._offset, begun, begun, time.monotonic())

    def _add(self, begun: int, ended: int) -> None:
        with self._lock:
            before_begun, before_ended, _ = _SLOT.unpack_from(self._memory, self._offset)
            _SLOT.pack_into(self._memory, self._offset, before_begun + begun, before_ended + ended, time.monotonic())
