"""
Prometheus exposition of the counts of `harn.observability.metrics`, and of the process: its use, its versions.

Imported at the first scrape: prometheus_client costs time and memory that a server without scrapes saves.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from twisted.logger import Logger

import harn
import twisted
from harn.model.delivery import REASONS, SKIP_REASONS
from harn.model.references import LOCAL
from harn.observability.counts import OTHER, REFUSALS, Histogram, TriggerCounts
from harn.observability.metrics import EndpointStats, Gauge, Metrics
from harn.observability.outputs import outputs

log = Logger()

Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values of one family, each with its label values."""


class Scrape(Collector):
    """
    One scrape: the gauges as they were when it was made, and the plain numbers, which it converts to families.

    It copies each table before it iterates over it, since the reactor thread may add to it meanwhile.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Read the gauges."""
        self._metrics = metrics
        self._endpoints = metrics.endpoints()
        self._gauges = [family for family in map(read_gauge, metrics.gauges.values()) if family is not None]

    def render(self) -> bytes:
        """Return all metrics, in text format 0.0.4; on any thread."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every family, including those without a series."""
        metrics = self._metrics
        yield from http_families(metrics, self._endpoints)
        yield from trigger_families(metrics)
        yield from reload_families(metrics)
        yield from alert_families(metrics)
        yield from self._gauges
        yield from process_families()


def http_families(metrics: Metrics, answered: Mapping[str, EndpointStats]) -> Iterator[Metric]:
    """Yield requests by endpoint, decisions of admission, and durations of appends."""
    endpoints = answered.items()
    yield counter(
        "harn_http_requests",
        "HTTP requests answered.",
        ("endpoint", "method", "status"),
        (
            ((endpoint, method, str(status)), count)
            for endpoint, stats in endpoints
            for (method, status), count in list(stats.requests.items())
        ),
    )
    yield histogram(
        "harn_http_request_duration_seconds",
        "Time from the end of a request's headers to its answer.",
        ("endpoint",),
        {(endpoint,): stats.seconds for endpoint, stats in endpoints},
    )
    yield histogram(
        "harn_http_body_size_bytes",
        "Size of request bodies.",
        ("endpoint",),
        {(endpoint,): stats.body_bytes for endpoint, stats in endpoints},
    )
    yield counter(
        "harn_backpressure_events",
        "Decisions of admission and of circuits.",
        ("dimension", "action"),
        list(metrics.backpressures.items()),
    )
    yield histogram(
        "harn_event_log_append_duration_seconds",
        "Time until an append was durable.",
        ("topic",),
        {(topic,): found for topic, found in list(metrics.appends.items())},
    )


def trigger_families(metrics: Metrics) -> Iterator[Metric]:
    """
    Yield the events of each trigger, and sums over all triggers.

    Each trigger has its rows at 0 too: an alert on a rise misses a series that begins above it.
    """
    triggers = list(metrics.triggers.values())
    yield from _event_families(triggers)
    yield from _attempt_families(triggers)
    yield from _loss_families(triggers)
    yield histogram(
        "harn_handler_duration_seconds",
        "Time of attempts that called the handler, however they ended.",
        ("trigger_id",),
        {(stats.trigger_id,): stats.handler_seconds for stats in triggers},
    )
    yield histogram(
        "harn_delivery_duration_seconds",
        "Time from accepted to done.",
        ("trigger_id",),
        {(stats.trigger_id,): stats.delivery_seconds for stats in triggers},
    )
    totals = copy(metrics.removed)
    for stats in triggers:
        totals.add(stats)
    yield counter("harn_dispatch_succeeded", "Deliveries handled.", (), [((), totals.succeeded)])
    yield counter("harn_dispatch_failed", "Attempts that failed.", (), [((), totals.failed)])
    yield counter("harn_inbox_duplicates", "Events that had been accepted before.", (), [((), totals.deduped)])
    yield counter("harn_retry_scheduled", "Further attempts planned.", (), [((), totals.retries)])


def _by_reason(found: Iterable[tuple[str, Mapping[str, int]]], reasons: Iterable[str]) -> Rows:
    """
    Yield a row for each trigger and each reason that there may be, and for each that was counted beside them.

    :param found: counts by reason, by trigger id.
    """
    for trigger_id, counted in found:
        counts = dict(counted)
        for reason in dict.fromkeys((*reasons, *counts)):
            yield (trigger_id, reason), counts.get(reason, 0)


def _event_families(triggers: Sequence[TriggerCounts]) -> Iterator[Metric]:
    """Yield the metrics of events until they were accepted."""
    yield counter(
        "harn_trigger_received",
        "Requests and emissions that reached a trigger.",
        ("provider", "trigger_id"),
        (((stats.provider, stats.trigger_id), stats.received) for stats in triggers),
    )
    yield counter(
        "harn_trigger_accepted",
        "Events that were kept to be handled.",
        ("trigger_id",),
        (((stats.trigger_id,), stats.accepted) for stats in triggers),
    )
    yield counter(
        "harn_trigger_deduped",
        "Events that had been accepted before.",
        ("trigger_id", "reason"),
        (((stats.trigger_id, "inbox_duplicate"), stats.deduped) for stats in triggers),
    )
    yield counter(
        "harn_trigger_ignored",
        "Events that the trigger does not accept.",
        ("trigger_id", "reason"),
        (
            *(((stats.trigger_id, "no_match"), stats.ignored) for stats in triggers),
            *(((stats.trigger_id, "filtered"), stats.filtered) for stats in triggers),
        ),
    )


def _attempt_families(triggers: Sequence[TriggerCounts]) -> Iterator[Metric]:
    """Yield how the predicates and attempts of each trigger ended."""
    yield counter(
        "harn_trigger_predicate_evaluations",
        "Answers of predicates.",
        ("trigger_id", "result"),
        (
            *(((stats.trigger_id, "true"), stats.predicate_true) for stats in triggers),
            *(((stats.trigger_id, "false"), stats.predicate_false) for stats in triggers),
        ),
    )
    yield counter(
        "harn_trigger_dispatched",
        "Attempts by how they ended.",
        ("trigger_id", "handler_kind", "outcome"),
        (
            *(
                ((stats.trigger_id, LOCAL, outcome), count - _sent(stats, outcome))
                for stats in triggers
                for outcome, count in _outcomes(stats)
            ),
            *(
                ((stats.trigger_id, scheme, outcome), count)
                for stats in triggers
                for (scheme, outcome), count in tuple(stats.sent.items())
            ),
        ),
    )
    yield counter(
        "harn_trigger_retries",
        "Further attempts planned.",
        ("trigger_id",),
        (((stats.trigger_id,), stats.retries) for stats in triggers),
    )


def _outcomes(stats: TriggerCounts) -> Iterable[tuple[str, int]]:
    """Return how many of a trigger's attempts had each outcome."""
    return (
        ("succeeded", stats.dispatched_ok),
        ("failed", stats.dispatched_failed),
        ("skipped", stats.dispatched_skipped),
        ("retry_after", stats.dispatched_again),
    )


def _sent(stats: TriggerCounts, outcome: str) -> int:
    """Return how many of a trigger's attempts went elsewhere than to a local function, and ended so."""
    return sum(count for (_, ended), count in tuple(stats.sent.items()) if ended == outcome) if stats.sent else 0


def _loss_families(triggers: Sequence[TriggerCounts]) -> Iterator[Metric]:
    """Yield dead letters, skipped deliveries and refused requests by reason."""
    yield counter(
        "harn_trigger_dlq",
        "Deliveries given up.",
        ("trigger_id", "reason"),
        _by_reason(((stats.trigger_id, stats.dead_reasons) for stats in triggers), REASONS),
    )
    yield counter(
        "harn_trigger_skipped",
        "Deliveries that ended without a call of their handler.",
        ("trigger_id", "reason"),
        _by_reason(((stats.trigger_id, stats.skip_reasons) for stats in triggers), SKIP_REASONS),
    )
    yield counter(
        "harn_refused_requests",
        "Requests to a trigger that were never events.",
        ("trigger_id", "reason"),
        _by_reason(((stats.trigger_id, stats.refusals) for stats in triggers), (*REFUSALS.values(), OTHER)),
    )


def reload_families(metrics: Metrics) -> Iterator[Metric]:
    """Yield reloads by outcome, and replaced interpreters."""
    yield counter("harn_reload", "Reloads by how they ended.", ("source", "outcome"), list(metrics.reloads.items()))
    yield histogram(
        "harn_reload_duration_seconds",
        "Time that the stages of reloads took.",
        ("stage",),
        {(stage,): found for stage, found in list(metrics.reload_stages.items())},
    )
    yield gauge(
        "harn_reload_last_success_timestamp_seconds",
        "When the last successful reload ended.",
        (),
        [((), metrics.last_success)],
    )
    yield gauge("harn_reload_last_status", "1 if the last reload succeeded.", (), [((), float(metrics.last_ok))])
    yield gauge("harn_generation", "The generation that serves.", (), [((), metrics.generation)])
    yield counter(
        "harn_interpreter_restarts",
        "Interpreters that had to be replaced.",
        (),
        [((), metrics.interpreter_restarts)],
    )
    yield counter(
        "harn_log_records_dropped",
        "Log records that an output (stdout, stderr, file) could not take in time.",
        ("output",),
        (((name,), count) for name, count in outputs.dropped().items()),
    )


def alert_families(metrics: Metrics) -> Iterator[Metric]:
    """Yield the messages of alerts, by kind and receiver."""
    alerts = list(metrics.alerts.items())
    rows = [(labels, counts.sent) for labels, counts in alerts]
    yield counter("harn_alerts_sent", "Messages of alerts that were sent.", ("on", "to"), rows)
    rows = [(labels, counts.failed) for labels, counts in alerts]
    yield counter("harn_alerts_failed", "Tries to send a message of an alert that failed.", ("on", "to"), rows)


def counter(name: str, documentation: str, labelnames: tuple[str, ...], rows: Rows) -> Metric:
    """Make the family ``<name>_total``."""
    family = CounterMetricFamily(name, documentation, labels=labelnames)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def gauge(name: str, documentation: str, labelnames: tuple[str, ...], rows: Rows) -> Metric:
    """Make a family of gauges."""
    family = GaugeMetricFamily(name, documentation, labels=labelnames)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def histogram(
    name: str, documentation: str, labelnames: tuple[str, ...], found: Mapping[tuple[str, ...], Histogram]
) -> Metric:
    """Make a family of histograms, with cumulative buckets."""
    family = HistogramMetricFamily(name, documentation, labels=labelnames)
    for labels, each in found.items():
        bounds = (*map(floatToGoString, each.bounds), "+Inf")
        family.add_metric(labels, list(zip(bounds, accumulate(each.counts), strict=True)), each.total)
    return family


def read_gauge(registered: Gauge) -> Metric | None:
    """Read a gauge; one that raises is logged and left out of this scrape."""
    try:
        value = registered.read()
        rows: Rows = value.items() if isinstance(value, Mapping) else [((), value)]
        family = counter if registered.only_rises else gauge
        return family(registered.name, registered.documentation, registered.labelnames, rows)
    except Exception:
        log.failure("the metric {name} cannot be read", name=registered.name)
        return None


DESCRIPTORS = "/proc/self/fd"


def process_families() -> Iterator[Metric]:
    """
    Yield ``harn_build_info`` and, where there is a ``/proc``, ``process_*``. Reads files of the kernel.

    A server whose memory is closed to other users may not list its own open files; newer kernels tell their number.
    """
    built = GaugeMetricFamily(
        "harn_build_info", "1, with the versions as labels.", labels=("version", "python", "twisted")
    )
    built.add_metric((harn.__version__, platform.python_version(), twisted.__version__), 1.0)
    yield built
    families = list(ProcessCollector(registry=None).collect())
    yield from families
    if families and not any(family.name == "process_open_fds" for family in families):
        try:
            count = os.stat(DESCRIPTORS).st_size
        except OSError:
            return
        if count:
            yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", value=float(count))
