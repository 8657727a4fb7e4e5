"""
When a failed delivery is tried again. Pure.

Source of the ``svix`` schedule: Svix, "Retry Schedule".
"""

from __future__ import annotations

from collections.abc import Callable

from harn.manifest.model import RetrySpec

DEFAULT_ATTEMPTS = 7
SVIX = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before attempt 1, 2, ...; the last one repeats."""


def allowed_attempts(retry: RetrySpec) -> int:
    """Return the number of attempts in all; 0 in the manifest means the default."""
    return retry.max or DEFAULT_ATTEMPTS


def delay_before(attempt: int, retry: RetrySpec, random: Callable[[], float]) -> float:
    """
    Return the wait before an attempt.

    :param attempt: its number, 2 or more.
    :param random: gives a number from 0 up to 1; the jittered share of an exponential delay is drawn with it.
    :return: seconds.
    """
    if retry.backoff == "svix":
        return SVIX[min(attempt, len(SVIX)) - 1]
    if retry.backoff == "exponential":
        # 2 ** 63 seconds are more than any cap; a larger exponent only costs time.
        full = min(retry.cap, retry.base * 2.0 ** min(attempt - 2, 63))
        return full * (1.0 - retry.jitter * random())
    return 0.0
