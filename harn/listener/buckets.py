"""
A token bucket, as pure functions of plain values.

A bucket gains ``rate`` tokens a second up to ``burst``; a request takes one, or learns how long to wait for it.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import gt


@frozen
class Rate:
    """Tokens a second, and how many a full bucket holds."""

    rate: float = field(validator=gt(0))
    burst: float = field(validator=gt(0))


@frozen
class Level:
    """
    How full a bucket was, and when (seconds of any one clock).
    """

    tokens: float
    at: float


def full(rate: Rate, now: float) -> Level:
    """Start with a full bucket."""
    return Level(rate.burst, now)


def level_at(level: Level, rate: Rate, now: float) -> Level:
    """Let time pass; a clock that goes back fills nothing, and a burst that shrank spills."""
    gained = max(0.0, now - level.at) * rate.rate
    return Level(min(rate.burst, level.tokens + gained), now)


def take(level: Level, rate: Rate, now: float) -> tuple[Level, float]:
    """
    Take one token.

    :return: the bucket afterwards, and 0, or the seconds until a token will be there (then none is taken).
    """
    present = level_at(level, rate, now)
    needed = min(1.0, rate.burst)
    if present.tokens >= needed:
        return Level(present.tokens - needed, now), 0.0
    return present, (needed - present.tokens) / rate.rate
