"""Comparison of signatures in constant time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hmac import compare_digest


def any_equal(expected: Iterable[bytes], given: Sequence[str]) -> bool:
    """
    Return whether any given signature equals any expected one. All pairs are compared, whatever matches on the way.

    Signatures are compared as text: a malformed one equals none and needs no parsing.
    """
    found = False
    candidates = [text.encode("utf-8", "replace") for text in given]
    for value in expected:
        for candidate in candidates:
            found |= compare_digest(value, candidate)
    return found
