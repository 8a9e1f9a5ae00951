"""Limits as configurations give them: rates in bits a second, bursts in bits, of either direction."""

from typing import Annotated, Self

from pycni.sdk import Field, Model, RateLimit

_TOO_BIG = 0xFFFFFFFF  # bytes

Bits = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]


class Limits(Model):
    """What the container receives is ingress, what it sends is egress; 0 is no limit."""

    ingress_rate: Bits = 0
    ingress_burst: Bits = 0
    egress_rate: Bits = 0
    egress_burst: Bits = 0

    @property
    def ingress(self) -> RateLimit | None:
        """The limit of what the container receives."""
        return _limit(self.ingress_rate, self.ingress_burst)

    @property
    def egress(self) -> RateLimit | None:
        """The limit of what the container sends."""
        return _limit(self.egress_rate, self.egress_burst)

    def checked(self) -> Self:
        """These limits. Raises ValueError if they cannot be kept."""
        for direction, rate, burst in (
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ):
            if complaint := _complaint(rate, burst):
                raise ValueError(f"{direction}: {complaint}")
        return self


def _limit(rate: int, burst: int) -> RateLimit | None:
    return RateLimit(rate // 8, burst // 8) if rate else None


def _complaint(rate: int, burst: int) -> str:
    if rate and not burst:
        return "if rate is set, burst must also be set"
    if burst and not rate:
        return "if burst is set, rate must also be set"
    if burst // 8 >= _TOO_BIG:
        return f"burst cannot be more than 4GB: {burst} bits"
    if 0 < rate < 8 or 0 < burst < 8:
        return f"rate {rate} and burst {burst} are in bits, and less than a byte"
    return ""
