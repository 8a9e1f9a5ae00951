"""Rate limits, and their comparison with the kernel's values."""

import pytest

from pycni.kernel.link.rate_limit import U32, Bucket, RateLimit

MBIT = RateLimit(rate=125_000, burst=10_000)


@pytest.mark.parametrize(
    ("limit", "queue_limit"),
    [
        (MBIT, 13_125),
        (RateLimit(rate=1, burst=1), 1),
        (RateLimit(rate=125_000, burst=10_000, latency=1000), 135_000),
        (RateLimit(rate=10**12, burst=U32 - 1), U32),  # the maximum of 32 bits
    ],
)
def test_queue_limit_in_bytes(limit: RateLimit, queue_limit: int) -> None:
    assert limit.limit == queue_limit


@pytest.mark.parametrize(
    ("limit", "ticks"),
    [
        (MBIT, 1_250_000),
        (RateLimit(rate=375_000, burst=37_500), 1_562_500),
        (RateLimit(rate=10**10, burst=10**8), 156_250),
        (RateLimit(rate=125_000_000, burst=268_435_455), 33_554_421),  # a burst that containerd configures
        (RateLimit(rate=37_500_000, burst=1514), None),  # less than an Ethernet frame
        (RateLimit(rate=10**10, burst=100_001), None),  # 10.0001 microseconds; 10 are 9.984 in ticks
        (RateLimit(rate=1_250_000, burst=268_435_455), None),  # 214 seconds
    ],
)
def test_burst_in_ticks_is_none_if_it_is_not_exact(limit: RateLimit, ticks: int | None) -> None:
    assert limit.ticks == ticks


@pytest.mark.parametrize(
    ("limit", "bucket"),
    [
        (MBIT, Bucket(125_000, 13_125, 1_250_000)),
        (MBIT, Bucket(125_000, 13_125, 1_250_001)),  # the kernel rounds
        (RateLimit(1000, U32 - 1), Bucket(1000, U32, 4_294_936_046)),  # a bucket of 50 days, modulo 2^32 ticks
        (RateLimit(1000, U32 - 1), Bucket(1000, 23, 67_108_863)),  # the same, set by the Go plugin
        (RateLimit(2**40, 2**29), Bucket(2**40, U32, 7_629)),
    ],
)
def test_equal_buckets_have_no_difference(limit: RateLimit, bucket: Bucket) -> None:
    assert limit.difference(bucket) == ""


@pytest.mark.parametrize(
    ("bucket", "difference"),
    [
        (Bucket(125_001, 13_125, 1_250_000), "the rate is 125001 bytes/s, not 125000"),
        (Bucket(125_000, 13_125, 1_350_000), "the burst is 10800 bytes, not 10000"),
        (Bucket(125_000, 16_250, 1_250_000), "the latency is 50 ms, not 25"),
    ],
)
def test_first_difference_is_returned(bucket: Bucket, difference: str) -> None:
    assert MBIT.difference(bucket) == difference
