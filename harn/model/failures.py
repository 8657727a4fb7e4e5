"""Which failed attempts count against the code of a handler."""

from __future__ import annotations

from harn.errors import (
    HandlerRaised,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.model.delivery import Attempt

FAILURES = frozenset(
    each.error_class
    for each in (HandlerRaised, HandlerTimedOut, InterpreterDied, PredicateRaised, ResultInvalid, ResultTooLarge)
)
"""Error classes of attempts that count against the code; `Reject` and `RetryAfter` of a handler do not."""


def counts_against_code(attempt: Attempt) -> bool:
    """Return whether an attempt failed for a reason that lies in the handler, its predicate or its interpreter."""
    return attempt.error_class in FAILURES
