"""Timeouts and intervals of the DHCP client in seconds, with the defaults and flags of Go's `dhcp daemon`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

_FIRST_ON_NEW_LINK, _FIRST_RETRANSMISSION, _MAX_RETRANSMISSION = 0.05, 0.5, 4.0
_FIRST_PAUSE = 2.0
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """The timeouts and intervals of a lease daemon."""

    timeout: float = 10.0  # of one attempt, from DISCOVER to ACK
    resend_max: float = 62.0  # longest pause between two attempts
    resend_timeout: float = 208.0  # for all attempts of an ADD
    check_interval: float = 10.0  # between two checks that the interface exists
    broadcast: bool = False  # whether messages set the broadcast flag

    def retransmissions(self, *, new_link: bool = False) -> Iterator[float]:
        """Yield how long to wait for an answer before the message is sent again.

        With `new_link`, the first wait is short. The first message is often lost because the bridge port does not
        forward yet, which the link cannot notice but never takes long.
        """
        if new_link:
            yield _FIRST_ON_NEW_LINK
        yield from _doubling(_FIRST_RETRANSMISSION, _MAX_RETRANSMISSION)

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between attempts."""
        return _doubling(min(_FIRST_PAUSE, self.resend_max), self.resend_max)


def _doubling(first: float, longest: float) -> Iterator[float]:
    pause = first
    while True:
        yield pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - only spreads clients over time
        pause = min(2 * pause, longest)
