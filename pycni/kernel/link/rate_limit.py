"""Rate limits in the units of the kernel's token bucket filter (tbf)."""

from dataclasses import dataclass
from typing import NamedTuple

U32 = 0xFFFFFFFF
_TICK = 64  # nanoseconds: the unit of the bucket size that the kernel reports
_SECOND = 1_000_000_000
_MAX_PACKET = 0xFFFF  # bytes


class Bucket(NamedTuple):
    """The parameters of a tbf as the kernel reports them."""

    rate: int  # bytes a second
    limit: int  # bytes that may be queued
    buffer: int  # bucket size: the time that a burst takes, in ticks, modulo 2^32


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit for sending: `rate` in bytes per second, `burst` in bytes, and `latency`, the longest delay, in ms."""

    rate: int
    burst: int
    latency: int = 25

    def __str__(self) -> str:
        return f"{self.rate} bytes/s, {self.burst} bytes at once"

    @property
    def limit(self) -> int:
        """The number of bytes that may be queued, at most 2^32-1, because the kernel stores 32 bits."""
        return min(self._unbounded_limit, U32)

    @property
    def _unbounded_limit(self) -> int:
        return self.rate * self.latency // 1000 + self.burst

    @property
    def ticks(self) -> int | None:
        """The bucket size in ticks, computed as the Go plugin does, so that its CHECK accepts it.

        None if the burst would be smaller then: the Go plugin rounds to microseconds in floating point, and some
        kernels limit the bucket to 4.3 seconds.
        """
        ticks = int(1_000_000 * (self.burst / self.rate)) * 1000 // _TICK
        lost = self.burst * _SECOND - ticks * _TICK * self.rate
        whole = lost <= 0 or (self.burst > _MAX_PACKET and lost * 1000 < self.burst * _SECOND)
        return ticks if whole and ticks * _TICK <= U32 else None

    def difference(self, found: Bucket) -> str:
        """Return a phrase that says how the tbf differs from this limit; "" if it does not.

        A tbf of the Go plugin is accepted too: there large numbers wrap around at 32 bits, and the bucket is limited to
        4.3 seconds.
        """
        if found.rate != self.rate:
            return f"the rate is {found.rate} bytes/s, not {self.rate}"
        if not any(
            _near(found.buffer, ticks) for ticks in (self.burst * _SECOND // self.rate // _TICK, self._go_ticks())
        ):
            return f"the burst is {found.buffer * _TICK * self.rate // _SECOND} bytes, not {self.burst}"
        if found.limit not in (self.limit, self._unbounded_limit & U32):
            return f"the latency is {(found.limit - self.burst) * 1000 // self.rate} ms, not {self.latency}"
        return ""

    def _go_ticks(self) -> int:
        microseconds = self.burst * 1_000_000 // self.rate & U32
        ticks = microseconds * 1000 // _TICK & U32
        return min(ticks * _TICK, U32) // _TICK


def _near(found: int, wanted: int) -> bool:
    """Return whether two numbers of ticks are equal modulo 2^32, up to the rounding errors of the kernel."""
    apart = (found - wanted) & U32
    return min(apart, U32 + 1 - apart) <= 2 + (wanted >> 20)
