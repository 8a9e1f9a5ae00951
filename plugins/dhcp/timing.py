"""How patient the client is; seconds, with the defaults and the flags of Go's `dhcp daemon`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

_FRESH_RETRY, _FIRST_RETRY, _SLOWEST_RETRY = 0.05, 0.5, 4.0
_FIRST_PAUSE = 2.0
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """The patience of a keeper."""

    timeout: float = 10.0  # for one attempt, from DISCOVER to ACK
    resend_max: float = 62.0  # the longest pause between two attempts
    resend_timeout: float = 208.0  # for all attempts of an ADD
    look_every: float = 10.0  # how often it looks whether the interface is still there
    broadcast: bool = False  # whether servers shall broadcast their answers

    def retries(self, *, fresh: bool = False) -> Iterator[float]:
        """How long to wait for an answer before a message is sent again.

        The first message over a `fresh` link is often lost, because the port of a bridge does not forward yet: nobody
        tells the link, but it never takes long.
        """
        if fresh:
            yield _FRESH_RETRY
        yield from _growing(_FIRST_RETRY, _SLOWEST_RETRY)

    def pauses(self) -> Iterator[float]:
        """How long to wait between two attempts."""
        return _growing(min(_FIRST_PAUSE, self.resend_max), self.resend_max)


def _growing(first: float, longest: float) -> Iterator[float]:
    pause = first
    while True:
        yield pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - only not all at the same time
        pause = min(2 * pause, longest)
