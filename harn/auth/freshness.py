"""Check that a signed time stamp is recent, for the server's own signed requests and for those of providers."""

from __future__ import annotations

from harn.errors import SignatureStale

TOLERANCE = 300
"""Seconds, either way: the tolerance of Standard Webhooks, Stripe and Slack, and of the server's own requests."""

_LONGEST = 12  # digits; bounds what is parsed, and year 33658 is late enough


def check_fresh(timestamp: str, now: float, tolerance: int = TOLERANCE) -> int:
    """
    Return the time stamp as whole seconds (Unix), unless it is too far from now.

    :param timestamp: ASCII digits only, as received: no sign, no fraction, no white space.
    :param now: seconds, Unix; its fraction does not count.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureStale: malformed, or outside the window.
    """
    if not (0 < len(timestamp) <= _LONGEST and timestamp.isascii() and timestamp.isdigit()):
        raise SignatureStale("the signature's timestamp is not in whole Unix seconds")
    seconds = int(timestamp)
    age = int(now) - seconds
    if abs(age) > tolerance:
        distance = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise SignatureStale(
            f"the signature's timestamp is {distance}; at most {tolerance} s are allowed, so check the sender's clock"
        )
    return seconds
