"""Gauges of binding versions: what is in flight on each, and how the versions of a ramping trigger share deliveries."""

from __future__ import annotations

from collections import Counter

from harn.observability.counts import NO_COUNTS
from harn.observability.metrics import Metrics
from harn.triggers.registry import Registry

Values = dict[tuple[str, ...], float]


def add_version_gauges(metrics: Metrics, registry: Registry) -> None:
    """Add the gauges of the versions in ``registry``, which are read at each scrape."""
    metrics.gauge(
        "harn_binding_in_flight",
        "Leases held on each binding version.",
        lambda: {(binding.key, binding.state): float(binding.in_flight) for binding in registry},
        ("binding_key", "state"),
    )
    metrics.gauge(
        "harn_binding_share",
        "Share (0 to 1) of new deliveries that each version of a ramping trigger takes.",
        lambda: {(binding.key,): registry.share(binding) for binding in registry.ramping()},
        ("binding_key",),
    )
    metrics.gauge(
        "harn_binding_attempts",
        "Attempts that ended on each version of a ramping trigger, since the server's start.",
        lambda: _attempts(metrics, registry),
        ("binding_key", "outcome"),
    )
    metrics.gauge(
        "harn_trigger_inflight",
        "Leases held on each trigger.",
        lambda: _in_flight_by_trigger(registry),
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_retries_waiting", "Deliveries that wait for a retry.", lambda: float(sum(registry.waiting.values()))
    )


def _in_flight_by_trigger(registry: Registry) -> Values:
    counts: Counter[tuple[str, ...]] = Counter()
    for binding in registry:
        counts[(binding.id,)] += binding.in_flight
    return {key: float(count) for key, count in counts.items()}


def _attempts(metrics: Metrics, registry: Registry) -> Values:
    counts: Values = {}
    for binding in registry.ramping():
        found = metrics.versions.get(binding.key, NO_COUNTS)
        counts[(binding.key, "failed")] = float(found.attempts_failed)
        counts[(binding.key, "succeeded")] = float(found.attempted - found.attempts_failed)
    return counts
