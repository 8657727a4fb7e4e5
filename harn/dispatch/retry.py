"""
When a failed delivery is tried again, and one whose call was interrupted. Pure.

Source of the ``svix`` schedule: Svix, "Retry Schedule".
"""

from __future__ import annotations

from collections.abc import Callable

from harn.manifest.model import RetrySpec

DEFAULT_ATTEMPTS = 7
SVIX = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before attempt 1, 2, ...; the last one repeats."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


def allowed_attempts(retry: RetrySpec) -> int:
    """Return the number of attempts in all; 0 in the manifest means the default."""
    return retry.max or DEFAULT_ATTEMPTS


def delay_before(attempt: int, retry: RetrySpec, random: Callable[[], float]) -> float:
    """
    Return the wait before an attempt: the full one, less what is drawn of its jittered share.

    :param attempt: its number, 2 or more.
    :param random: gives a number from 0 up to 1.
    :return: seconds.
    """
    return full_delay(attempt, retry) * (1.0 - retry.share_of_jitter * random())


def full_delay(attempt: int, retry: RetrySpec) -> float:
    """
    Return the longest wait before an attempt, in seconds.

    :param attempt: its number, 2 or more.
    """
    if retry.schedule:
        return retry.schedule[min(attempt - 1, len(retry.schedule)) - 1]
    if retry.backoff == "svix":
        return SVIX[min(attempt, len(SVIX)) - 1]
    if retry.backoff == "linear":
        return min(retry.cap, retry.base * (attempt - 1))
    if retry.backoff == "exponential":
        # 2 ** 63 seconds are more than any cap; a larger exponent only costs time.
        return min(retry.cap, retry.base * 2.0 ** min(attempt - 2, 63))
    return 0.0


def pause_after(interruptions: int) -> float:
    """
    Return the seconds before a call that was interrupted is made again: at once after the first.

    :param interruptions: how many there were before this one. A destination that refuses everything must not spin the
        reactor.
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(interruptions - 1, 10)) if interruptions else 0.0
