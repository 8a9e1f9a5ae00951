"""The rate limits of a configuration: rates in bits per second and bursts in bits, per direction."""

from typing import Annotated, Self

from pycni.sdk import Field, Model, RateLimit

_BURST_MAX = 0xFFFFFFFF  # bytes, exclusive

Bits = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]


class Limits(Model):
    """Rates and bursts: ingress is what the container receives, egress what it sends. 0 means no limit."""

    ingress_rate: Bits = 0
    ingress_burst: Bits = 0
    egress_rate: Bits = 0
    egress_burst: Bits = 0

    @property
    def ingress(self) -> RateLimit | None:
        """Return the limit of what the container receives, or None."""
        return _limit(self.ingress_rate, self.ingress_burst)

    @property
    def egress(self) -> RateLimit | None:
        """Return the limit of what the container sends, or None."""
        return _limit(self.egress_rate, self.egress_burst)

    def checked(self) -> Self:
        """Return these limits. Raise ValueError if a rate and its burst do not fit together or are out of range."""
        for direction, rate, burst in (
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ):
            if problem := _problem(rate, burst):
                raise ValueError(f"{direction}: {problem}")
        return self


def _limit(rate: int, burst: int) -> RateLimit | None:
    return RateLimit(rate // 8, burst // 8) if rate else None


def _problem(rate: int, burst: int) -> str:
    if rate and not burst:
        return "if rate is set, burst must also be set"
    if burst and not rate:
        return "if burst is set, rate must also be set"
    if burst // 8 >= _BURST_MAX:
        return f"burst cannot be more than 4GB: {burst} bits"
    if 0 < rate < 8 or 0 < burst < 8:
        return f"rate {rate} and burst {burst} are in bits and must be at least 8"
    return ""
