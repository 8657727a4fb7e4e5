"""Observations counted by bucket, and the buckets that are used."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of durations (seconds)."""

STAGE_SECONDS = (*SECONDS, 10.0, 30.0)
"""Upper bounds of a reload's stages (seconds); a stage may take 30."""

DELIVERY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of handlers' times, and of the times from accepted to done (seconds)."""

BYTES = (128.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 10485760.0)
"""Upper bounds of sizes (bytes)."""


class Histogram:
    """
    Observations by bucket.

    :ivar bounds: upper bounds, inclusive, ascending; one more bucket counts values above the last.
    :ivar counts: observations in each bucket (not cumulative).
    :ivar total: sum of all observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
