"""
The counts of each binding version since the server's start: a subscriber to lifecycle events.
"""

from __future__ import annotations

from harn.errors import (
    HandlerRaised,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.lifecycle import (
    Accepted,
    Chosen,
    DeadLettered,
    Lifecycle,
    Received,
    Redriven,
    RequestRefused,
    Settled,
    VersionEnded,
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


class Counts:
    """
    The counts of one version.

    :ivar received: requests and emissions that reached it; ``refused``: requests that were never events, such as a
        stranger's; ``dispatched``: deliveries done; ``failed``: attempts that failed (those that
        ended by ``RetryAfter`` left out); ``dead``: deliveries given up.
    :ivar attempted: attempts that ended; ``attempts_failed``: those of them that count against the code.
    """

    __slots__ = ("attempted", "attempts_failed", "dead", "dispatched", "failed", "received", "refused")

    def __init__(self) -> None:
        self.received = self.refused = self.dispatched = self.failed = self.dead = 0
        self.attempted = self.attempts_failed = 0


NONE = Counts()
"""The counts of a version without events. Never changed."""


class VersionCounts:
    """Counts, by the key of the version (``gh@v2``), until that ends."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._counts: dict[str, Counts] = {}
        lifecycle.subscribe(Received, self._received)
        lifecycle.subscribe(Chosen, self._chosen)
        lifecycle.subscribe(RequestRefused, self._refused)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)
        lifecycle.subscribe(Redriven, self._redriven)
        lifecycle.subscribe(VersionEnded, self._ended)

    def of(self, binding: str) -> Counts:
        """Return the counts of a version, to be read only; all are 0 before anything has happened to it."""
        return self._counts.get(binding, NONE)

    def _entry(self, binding: str) -> Counts:
        found = self._counts.get(binding)
        if found is None:
            found = self._counts[binding] = Counts()
        return found

    def _received(self, event: Received) -> None:
        if event.binding is not None:
            self._entry(event.binding).received += 1

    def _chosen(self, event: Chosen) -> None:
        for binding in event.bindings:
            self._entry(binding).received += 1

    def _refused(self, event: RequestRefused) -> None:
        for binding in event.bindings:
            self._entry(binding).refused += 1

    def _accepted(self, event: Accepted) -> None:
        if event.delivery.dead is not None:
            self._entry(event.binding).dead += 1

    def _settled(self, event: Settled) -> None:
        settlement = event.settlement
        attempt = settlement.attempt
        counts = self._entry(event.binding)
        if attempt is not None:
            counts.attempted += 1
            counts.attempts_failed += counts_against_code(attempt)
        if settlement.succeeded:
            counts.dispatched += 1
            return
        counts.failed += attempt is not None and attempt.is_failure
        counts.dead += settlement.dead is not None

    def _dead_lettered(self, event: DeadLettered) -> None:
        if event.binding is not None:
            self._entry(event.binding).dead += event.count

    def _redriven(self, event: Redriven) -> None:
        counts = self._entry(event.binding)
        counts.dead = max(0, counts.dead - event.count)

    def _ended(self, event: VersionEnded) -> None:
        self._counts.pop(event.binding, None)
