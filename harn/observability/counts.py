"""
The counts of a trigger and of a binding version, as plain numbers, and observations counted by bucket.

`harn.observability.subscribers` adds to them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
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

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several observations: of many in order, a bucket's are found in one search."""
        if len(values) == 1:
            self.observe(values[0])
            return
        ordered = sorted(values)
        counts, before = self.counts, 0
        for bucket, bound in enumerate(self.bounds):
            within = bisect_right(ordered, bound)
            counts[bucket] += within - before
            before = within
        counts[-1] += len(ordered) - before
        self.total += sum(values)


REFUSALS = {
    400: "malformed",
    401: "unauthorized",
    403: "origin",
    408: "timeout",
    413: "too_large",
    415: "encoding",
    429: "rate_exceeded",
    500: "internal",
    503: "unavailable",
}
"""The reason why a request to a trigger was never an event, by the status of its answer; any other is `OTHER`."""

OTHER = "other"
"""Replaces refusals, methods and reload sources beyond those that are counted by name."""


class TriggerCounts:
    """
    The counts of one trigger over all its versions, since the server's start.

    :ivar received: requests and emissions that reached it.
    :ivar accepted: events stored.
    :ivar deduped: events not stored because their dedupe key was claimed.
    :ivar ignored: events not stored because ``events`` did not match.
    :ivar filtered: events not stored because ``filter`` refused them.
    :ivar dispatched_ok: deliveries whose handler succeeded.
    :ivar dispatched_skipped: deliveries whose predicate returned False.
    :ivar dispatched_failed: attempts that failed.
    :ivar dispatched_again: attempts that their handler ended by ``RetryAfter``.
    :ivar sent: those of all four whose handler is not a local function, by its scheme and ``succeeded``, ``failed``,
        ``skipped`` or ``retry_after``.
    :ivar handler_seconds: times of attempts that called the handler.
    :ivar delivery_seconds: times from accepted to done.
    :ivar retries: further attempts that were scheduled.
    :ivar dead_reasons: dead letters by reason; add with `dead`.
    :ivar refusals: requests that were never events, by reason; add with `refuse`.
    :ivar skip_reasons: skipped deliveries by reason; add with `skip`.
    :ivar last_success: when a handler last succeeded (seconds, Unix).
    :ivar last_failure: when an attempt last failed.
    :ivar predicate_true: predicates that returned True.
    :ivar predicate_false: predicates that returned False.
    """

    __slots__ = (
        "accepted",
        "dead_reasons",
        "deduped",
        "delivery_seconds",
        "dispatched_again",
        "dispatched_failed",
        "dispatched_ok",
        "dispatched_skipped",
        "filtered",
        "handler_seconds",
        "ignored",
        "last_failure",
        "last_success",
        "predicate_false",
        "predicate_true",
        "provider",
        "received",
        "refusals",
        "retries",
        "sent",
        "skip_reasons",
        "trigger_id",
    )

    def __init__(self, trigger_id: str, provider: str) -> None:
        self.trigger_id = trigger_id
        self.provider = provider
        self.received = self.accepted = self.deduped = self.ignored = self.filtered = 0
        self.dispatched_ok = self.dispatched_failed = self.dispatched_skipped = self.dispatched_again = 0
        self.handler_seconds = Histogram(DELIVERY_SECONDS)
        self.delivery_seconds = Histogram(DELIVERY_SECONDS)
        self.last_success: float | None = None
        self.last_failure: float | None = None
        self.retries = 0
        self.predicate_true = self.predicate_false = 0
        self.dead_reasons: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        self.skip_reasons: dict[str, int] = {}
        self.sent: Counter[tuple[str, str]] = Counter()

    def refuse(self, status: int) -> None:
        """Count a request that was answered with this status, and was never an event."""
        reason = REFUSALS.get(status, OTHER)
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def dead(self, reason: str, count: int = 1) -> None:
        """Count dead letters; ``reason`` is one of `harn.model.delivery`."""
        self.dead_reasons[reason] = self.dead_reasons.get(reason, 0) + count

    def skip(self, reason: str) -> None:
        """Count a delivery that was skipped; ``reason`` is one of `harn.model.delivery.SKIP_REASONS`."""
        self.skip_reasons[reason] = self.skip_reasons.get(reason, 0) + 1


class VersionCounts:
    """
    The counts of one binding version, since the server's start.

    :ivar received: requests and emissions that reached it.
    :ivar refused: requests that were never events, such as a stranger's.
    :ivar dispatched: deliveries done.
    :ivar failed: attempts that failed (those that ended by ``RetryAfter`` left out).
    :ivar dead: deliveries given up.
    :ivar attempted: attempts that ended.
    :ivar attempts_failed: those of them that count against the code.
    """

    __slots__ = ("attempted", "attempts_failed", "dead", "dispatched", "failed", "received", "refused")

    def __init__(self) -> None:
        self.received = self.refused = self.dispatched = self.failed = self.dead = 0
        self.attempted = self.attempts_failed = 0


NO_COUNTS = VersionCounts()
"""The counts of a version without events. Never changed."""


class Totals:
    """Sums over all triggers, including removed ones: a counter never goes back."""

    __slots__ = ("deduped", "failed", "retries", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.deduped = self.retries = 0

    def add(self, counts: TriggerCounts) -> None:
        """Add one trigger's counts."""
        self.succeeded += counts.dispatched_ok
        self.failed += counts.dispatched_failed
        self.deduped += counts.deduped
        self.retries += counts.retries
