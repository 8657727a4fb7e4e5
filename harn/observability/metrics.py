"""
The counts of a running server, kept as plain numbers until they are scraped.

A delivery costs a few integer additions here: no label is hashed, no lock is taken. A scrape is rendered by
`harn.observability.exposition`, which is imported at the first one. Everything except rendering happens on the reactor
thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from harn.observability.counts import (
    BYTES,
    OTHER,
    SECONDS,
    STAGE_SECONDS,
    Histogram,
    Totals,
    TriggerCounts,
    VersionCounts,
)

if TYPE_CHECKING:
    from harn.observability.exposition import Scrape

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""The ``Content-Type`` of `Metrics.render`."""

UNKNOWN_ENDPOINT = "(unknown)"
"""The endpoint of a request without a route: a path chosen by a stranger never becomes a label."""

BACKPRESSURES = (
    ("ingest", "admit"),
    ("ingest", "reject"),
    ("circuit", "opened"),
    ("circuit", "half_open_probe"),
    ("circuit", "closed"),
)
"""Dimensions and actions whose series exist, at 0, from the start."""

COUNTED_TOGETHER = 256
"""Requests to one endpoint that are counted together, unless they are asked for before."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))

MOST_SOURCES = 32
"""The number of reload sources counted by name: they are labels that callers choose."""

GaugeValue = float | Mapping[tuple[str, ...], float]
"""The value of a gauge: one number, or a number for each tuple of label values."""
Read = Callable[[], GaugeValue]
"""Returns the value of a gauge at a scrape; called on the reactor thread."""


class EndpointStats:
    """
    Requests to one endpoint: counts by method and status, durations and sizes.

    :ivar new: requests that are not counted yet: method, status, seconds and bytes of each. Counting many together
        takes a few steps for each of them.
    """

    __slots__ = ("body_bytes", "new", "requests", "seconds")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds = Histogram(SECONDS)
        self.body_bytes = Histogram(BYTES)
        self.new: list[tuple[str, int, float, int]] = []

    def count(self) -> None:
        """Count the new requests."""
        if self.new:
            methods, statuses, seconds, sizes = zip(*self.new, strict=True)
            self.new = []
            self.requests.update(zip(methods, statuses, strict=True))
            self.seconds.observe_all(seconds)
            self.body_bytes.observe_all(sizes)


class AlertCounts:
    """Messages of alerts of one kind and way: those sent, and the tries that failed."""

    __slots__ = ("failed", "sent")

    def __init__(self) -> None:
        self.sent = self.failed = 0


class Gauge(Struct, frozen=True, kw_only=True):
    """
    A number that is read at each scrape; ``read`` returns one number, or numbers by label values.

    :ivar only_rises: it is a counter.
    """

    name: str
    documentation: str
    read: Read
    labelnames: tuple[str, ...]
    only_rises: bool = False


class Metrics:
    """
    All metrics of one server.

    :ivar triggers: counts by trigger id, ``versions``: by the key of a binding version that has not ended, ``removed``:
        sums of triggers that are gone.
    :ivar last_delivery_id: the id of the delivery that was accepted last, 0 before the first, whose id is
        ``first_delivery_id``.
    :ivar touched: ids of triggers whose totals may have changed, or that are gone, since this was last emptied.
    :ivar generation: the generation that serves after the last finished reload.
    :ivar last_success: when the last successful reload ended (seconds, Unix; 0 if none did).
    :ivar last_ok: whether the last reload succeeded.
    """

    def __init__(self) -> None:
        self.triggers: dict[str, TriggerCounts] = {}
        self.touched: set[str] = set()
        self.versions: dict[str, VersionCounts] = {}
        self.removed = Totals()
        self._endpoints: dict[str, EndpointStats] = {}
        self.backpressures: dict[tuple[str, str], int] = dict.fromkeys(BACKPRESSURES, 0)
        self.appends: dict[str, Histogram] = {}
        self.reloads: dict[tuple[str, str], int] = {}
        self.reload_stages: dict[str, Histogram] = {}
        self.gauges: dict[str, Gauge] = {}
        self.generation = 0
        self.last_success = 0.0
        self.last_ok = False
        self.interpreter_restarts = 0
        self.first_delivery_id: int | None = None
        self.last_delivery_id = 0
        self.alerts: dict[tuple[str, str], AlertCounts] = {}
        self._sources: set[str] = set()

    def trigger(self, trigger_id: str, provider: str) -> TriggerCounts:
        """Return the counts of one trigger, which callers add to; after the first call its series exist, at 0."""
        counts = self.triggers.get(trigger_id)
        if counts is None:
            counts = self.triggers[trigger_id] = TriggerCounts(trigger_id, provider)
        elif counts.provider != provider:
            counts.provider = provider
        return counts

    def alert(self, on: str, to: str) -> AlertCounts:
        """Return the counts of messages of alerts, which callers add to; after the first call they exist, at 0."""
        counts = self.alerts.get((on, to))
        if counts is None:
            counts = self.alerts[on, to] = AlertCounts()
        return counts

    def version(self, binding: str) -> VersionCounts:
        """Return the counts of a binding version (its key, for example ``gh@v2``), which callers add to."""
        counts = self.versions.get(binding)
        if counts is None:
            counts = self.versions[binding] = VersionCounts()
        return counts

    def accepted(self, first_id: int, last_id: int) -> None:
        """Record the ids of the first and the last delivery that a commit has brought."""
        if self.first_delivery_id is None:
            self.first_delivery_id = first_id
        self.last_delivery_id = max(self.last_delivery_id, last_id)

    def remove_version(self, binding: str) -> None:
        """Remove the counts of a binding version that has ended."""
        self.versions.pop(binding, None)

    def remove(self, trigger_ids: Iterable[str], endpoints: Iterable[str] = ()) -> None:
        """
        Remove the series of removed triggers, and of ``endpoints`` (route paths); the sums without labels keep them.
        """
        for trigger_id in trigger_ids:
            counts = self.triggers.pop(trigger_id, None)
            if counts is not None:
                self.touched.add(trigger_id)
                self.removed.add(counts)
        for endpoint in endpoints:
            self._endpoints.pop(endpoint, None)

    def http_request(self, endpoint: str, method: str, status: int, seconds: float, body_bytes: int) -> None:
        """
        Count one answered request.

        :param endpoint: the path of the route, or `UNKNOWN_ENDPOINT`; never a path chosen by the sender.
        :param seconds: from the end of its headers to the answer.
        """
        found = self._endpoints.get(endpoint)
        if found is None:
            found = self._endpoints[endpoint] = EndpointStats()
        new = found.new
        new.append((method if method in METHODS else OTHER, status, seconds, body_bytes))
        if len(new) >= COUNTED_TOGETHER:
            found.count()

    def endpoints(self) -> dict[str, EndpointStats]:
        """Return the requests that were answered, by endpoint; the values are those that are added to."""
        for stats in self._endpoints.values():
            stats.count()
        return dict(self._endpoints)

    def backpressure(self, dimension: str, action: str) -> None:
        """Count one decision of ``ingest`` (``admit``, ``reject``) or of a ``circuit``."""
        key = (dimension, action)
        self.backpressures[key] = self.backpressures.get(key, 0) + 1

    def append_observed(self, topic: str, seconds: float) -> None:
        """Count one durable append: how long its caller waited."""
        self.appends_of(topic).observe(seconds)

    def appends_of(self, topic: str) -> Histogram:
        """Return the durations of durable appends to a topic; after the first call its series exist, at 0."""
        found = self.appends.get(topic)
        if found is None:
            found = self.appends[topic] = Histogram(SECONDS)
        return found

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

    def gauge(self, name: str, documentation: str, read: Read, labelnames: Sequence[str] = ()) -> None:
        """
        Register a gauge that shows the result of ``read`` at each scrape; replaces one of the same name.

        :param read: cheap, called on the reactor thread; one that raises leaves its gauge out of that scrape.
        """
        self.gauges[name] = Gauge(name=name, documentation=documentation, read=read, labelnames=tuple(labelnames))

    def counter(self, name: str, documentation: str, read: Read) -> None:
        """Register a counter as `gauge` registers a gauge; its series is ``<name>_total``."""
        self.gauges[name] = Gauge(name=name, documentation=documentation, read=read, labelnames=(), only_rises=True)

    def scrape(self) -> Scrape:
        """
        Read the gauges now; the result renders all metrics.

        Rendering ten thousand triggers takes seconds: it may be done on another thread.
        """
        from harn.observability.exposition import Scrape

        return Scrape(self)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format; the first call imports the exposition."""
        return self.scrape().render()
