"""
The counts of a running server, kept as plain numbers until they are scraped.

A delivery costs a few integer additions here: no label is hashed, no lock is taken. A scrape is rendered by
`harn.observability.exposition`, which is imported at the first one. Everything except rendering happens on the reactor
thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""The ``Content-Type`` of `Metrics.render`."""

UNKNOWN_ENDPOINT = "(unknown)"
"""The endpoint of a request without a route: a path chosen by a stranger never becomes a label."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of durations (seconds)."""

STAGE_SECONDS = (*SECONDS, 10.0, 30.0)
"""Upper bounds of a reload's stages (seconds); a stage may take 30."""

BYTES = (128.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 10485760.0)
"""Upper bounds of sizes (bytes)."""

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

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
OTHER = "other"
"""Replaces methods and reload sources beyond those that are counted by name."""

MOST_SOURCES = 32
"""The number of reload sources counted by name: they are labels that callers choose."""

GaugeValue = float | Mapping[tuple[str, ...], float]
"""The value of a gauge: one number, or a number for each tuple of label values."""


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


class TriggerStats:
    """
    The counts of one trigger over all its versions; callers add to the attributes.

    :ivar received: requests and emissions that reached it; ``accepted``: events stored; ``deduped``, ``ignored`` (no
        match) and ``filtered``: events that were not stored.
    :ivar dispatched_ok: deliveries whose handler succeeded; ``dispatched_skipped``: whose predicate returned False;
        ``dispatched_failed``: attempts that failed; ``dispatched_again``: that their handler ended by ``RetryAfter``.
        ``sent``: those of all four whose handler is not a local function, by its scheme and ``succeeded``, ``failed``,
        ``skipped`` or ``retry_after``.
    :ivar retries: further attempts that were scheduled; ``inflight``: deliveries that run now.
    :ivar dead_reasons: dead letters by reason; add with `dead`. ``refusals``: requests that were never events, by
        reason; add with `refuse`.
    :ivar predicate_true: predicates that returned True; ``predicate_false``: that returned False.
    """

    __slots__ = (
        "accepted",
        "dead_reasons",
        "deduped",
        "dispatched_again",
        "dispatched_failed",
        "dispatched_ok",
        "dispatched_skipped",
        "filtered",
        "ignored",
        "inflight",
        "predicate_false",
        "predicate_true",
        "provider",
        "received",
        "refusals",
        "retries",
        "sent",
        "trigger_id",
    )

    def __init__(self, trigger_id: str, provider: str) -> None:
        self.trigger_id = trigger_id
        self.provider = provider
        self.received = self.accepted = self.deduped = self.ignored = self.filtered = 0
        self.dispatched_ok = self.dispatched_failed = self.dispatched_skipped = self.dispatched_again = 0
        self.retries = self.inflight = 0
        self.predicate_true = self.predicate_false = 0
        self.dead_reasons: dict[str, int] = {}
        self.refusals: dict[str, int] = {}
        self.sent: Counter[tuple[str, str]] = Counter()

    def refuse(self, status: int) -> None:
        """Count a request that was answered with this status, and was never an event."""
        reason = REFUSALS.get(status, OTHER)
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def dead(self, reason: str, count: int = 1) -> None:
        """Count dead letters; ``reason`` is one of `harn.model.delivery`."""
        self.dead_reasons[reason] = self.dead_reasons.get(reason, 0) + count


class Totals:
    """Sums over all triggers, including removed ones: a counter never goes back."""

    __slots__ = ("deduped", "failed", "retries", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.deduped = self.retries = 0

    def add(self, stats: TriggerStats) -> None:
        """Add one trigger's counts."""
        self.succeeded += stats.dispatched_ok
        self.failed += stats.dispatched_failed
        self.deduped += stats.deduped
        self.retries += stats.retries


class EndpointStats:
    """Requests to one endpoint: counts by method and status, durations and sizes."""

    __slots__ = ("body_bytes", "requests", "seconds")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.seconds = Histogram(SECONDS)
        self.body_bytes = Histogram(BYTES)


@frozen(kw_only=True)
class Gauge:
    """A number that is read at each scrape; ``read`` returns one number, or numbers by label values."""

    name: str
    documentation: str
    read: Callable[[], GaugeValue]
    labelnames: tuple[str, ...]


class Metrics:
    """
    All metrics of one server.

    :ivar generation: the generation that serves after the last finished reload.
    :ivar last_success: when the last successful reload ended (seconds, Unix; 0 if none did).
    :ivar last_ok: whether the last reload succeeded.
    """

    def __init__(self) -> None:
        self.triggers: dict[str, TriggerStats] = {}
        self.forgotten = Totals()
        self.endpoints: dict[str, EndpointStats] = {}
        self.backpressures: dict[tuple[str, str], int] = {}
        self.appends: dict[str, Histogram] = {}
        self.reloads: dict[tuple[str, str], int] = {}
        self.reload_stages: dict[str, Histogram] = {}
        self.gauges: dict[str, Gauge] = {}
        self.generation = 0
        self.last_success = 0.0
        self.last_ok = False
        self.interpreter_restarts = 0
        self._sources: set[str] = set()

    def trigger(self, trigger_id: str, provider: str) -> TriggerStats:
        """Return the counts of one trigger, which callers add to; after the first call its series exist, at 0."""
        stats = self.triggers.get(trigger_id)
        if stats is None:
            stats = self.triggers[trigger_id] = TriggerStats(trigger_id, provider)
        elif stats.provider != provider:
            stats.provider = provider
        return stats

    def forget(self, trigger_ids: Iterable[str], endpoints: Iterable[str] = ()) -> None:
        """
        Remove the series of removed triggers, and of ``endpoints`` (route paths); the sums without labels keep them.
        """
        for trigger_id in trigger_ids:
            stats = self.triggers.pop(trigger_id, None)
            if stats is not None:
                self.forgotten.add(stats)
        for endpoint in endpoints:
            self.endpoints.pop(endpoint, None)

    def http_request(self, endpoint: str, method: str, status: int, seconds: float, body_bytes: int) -> None:
        """
        Count one answered request.

        :param endpoint: the path of the route, or `UNKNOWN_ENDPOINT`; never a path chosen by the sender.
        :param seconds: from the end of its headers to the answer.
        """
        found = self.endpoints.get(endpoint)
        if found is None:
            found = self.endpoints[endpoint] = EndpointStats()
        key = (method if method in METHODS else OTHER, status)
        found.requests[key] = found.requests.get(key, 0) + 1
        found.seconds.observe(seconds)
        found.body_bytes.observe(body_bytes)

    def backpressure(self, dimension: str, action: str) -> None:
        """Count one decision of ``ingest`` (``admit``, ``reject``) or of a ``circuit``."""
        key = (dimension, action)
        self.backpressures[key] = self.backpressures.get(key, 0) + 1

    def append_observed(self, topic: str, seconds: float) -> None:
        """Count one durable append: how long its caller waited."""
        found = self.appends.get(topic)
        if found is None:
            found = self.appends[topic] = Histogram(SECONDS)
        found.observe(seconds)

    def reload_finished(
        self, source: str, outcome: str, stages: Mapping[str, float], generation: int, at: float, ok: bool
    ) -> None:
        """
        Count one reload.

        :param outcome: for example ``ok``, ``unchanged`` or ``error``.
        :param stages: seconds that each stage took.
        :param generation: the generation that serves now.
        :param at: seconds, Unix.
        """
        if source not in self._sources:
            if len(self._sources) < MOST_SOURCES:
                self._sources.add(source)
            else:
                source = OTHER
        key = (source, outcome)
        self.reloads[key] = self.reloads.get(key, 0) + 1
        for stage, seconds in stages.items():
            self.reload_stages.setdefault(stage, Histogram(STAGE_SECONDS)).observe(seconds)
        self.generation = generation
        self.last_ok = ok
        if ok:
            self.last_success = at

    def interpreter_restarted(self) -> None:
        """Count one interpreter that had to be replaced."""
        self.interpreter_restarts += 1

    def gauge(
        self, name: str, documentation: str, read: Callable[[], GaugeValue], labelnames: Sequence[str] = ()
    ) -> None:
        """
        Register a gauge that shows the result of ``read`` at each scrape; replaces one of the same name.

        :param read: cheap, called on the reactor thread; one that raises leaves its gauge out of that scrape.
        """
        self.gauges[name] = Gauge(name=name, documentation=documentation, read=read, labelnames=tuple(labelnames))

    def scrape(self) -> Callable[[], bytes]:
        """
        Read the gauges now, and return a function that renders all metrics.

        Rendering ten thousand triggers takes seconds: the function may be called on another thread.
        """
        from harn.observability.exposition import scrape

        return scrape(self)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format; the first call imports the exposition."""
        return self.scrape()()
