"""A rate limit, as a token bucket filter (tbf) of the kernel keeps it."""

from dataclasses import dataclass
from typing import NamedTuple

U32 = 0xFFFFFFFF
_TICK = 64  # nanoseconds: the unit in which the kernel reports a bucket's size
_SECOND = 1_000_000_000
_PACKET = 0xFFFF  # bytes: none is longer


class Bucket(NamedTuple):
    """What the kernel reports of a tbf."""

    rate: int  # bytes a second
    limit: int  # bytes that may wait
    buffer: int  # ticks that a full bucket lasts, modulo 2^32


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a link may send: `rate` bytes a second, after a pause `burst` bytes at once; at most `latency` ms late."""

    rate: int
    burst: int
    latency: int = 25

    def __str__(self) -> str:
        return f"{self.rate} bytes/s, {self.burst} bytes at once"

    @property
    def limit(self) -> int:
        """The bytes that may wait. The kernel counts them in 32 bits: more than 4 GB are 4 GB."""
        return min(self._unbounded_limit, U32)

    @property
    def _unbounded_limit(self) -> int:
        return self.rate * self.latency // 1000 + self.burst

    @property
    def ticks(self) -> int | None:
        """How long the burst lasts, to the tick that the Go plugin's CHECK expects. None if that would cut the burst.

        The Go plugin counts whole microseconds, in floating point. Of more than 4.3 seconds some kernels make 4.3.
        """
        ticks = int(1_000_000 * (self.burst / self.rate)) * 1000 // _TICK
        lost = self.burst * _SECOND - ticks * _TICK * self.rate
        whole = lost <= 0 or (self.burst > _PACKET and lost * 1000 < self.burst * _SECOND)
        return ticks if whole and ticks * _TICK <= U32 else None

    def difference(self, found: Bucket) -> str:
        """How a tbf differs from this limit; empty if it does not.

        The Go plugin lets big numbers wrap around at 32 bits and, since it counts in ticks, gets a bucket of at most
        4.3 seconds; what it made is as it should be, too.
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
    """Whether two numbers of ticks are the same modulo 2^32, but for the rounding of the kernel's arithmetic."""
    apart = (found - wanted) & U32
    return min(apart, U32 + 1 - apart) <= 2 + (wanted >> 20)
