"""The metrics of triggers: counts what happens to requests and deliveries, as a subscriber to lifecycle events."""

from __future__ import annotations

from harn.lifecycle import (
    Accepted,
    Appended,
    Backpressure,
    DeadLettered,
    Dropped,
    Lifecycle,
    Received,
    RequestRefused,
    Settled,
    VersionEnded,
)
from harn.model.references import LOCAL
from harn.observability.metrics import Metrics


class TriggerMetrics:
    """Adds to `Metrics`."""

    def __init__(self, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._metrics = metrics
        lifecycle.subscribe(Received, self._received)
        lifecycle.subscribe(RequestRefused, self._refused)
        lifecycle.subscribe(Backpressure, self._backpressure)
        lifecycle.subscribe(Dropped, self._dropped)
        lifecycle.subscribe(Appended, self._appended)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)
        lifecycle.subscribe(VersionEnded, self._version_ended)

    def _received(self, event: Received) -> None:
        self._metrics.trigger(event.trigger_id, event.provider).received += 1

    def _refused(self, event: RequestRefused) -> None:
        self._metrics.trigger(event.trigger_id, event.provider).refuse(event.status)

    def _backpressure(self, event: Backpressure) -> None:
        self._metrics.backpressure(event.dimension, event.action)

    def _dropped(self, event: Dropped) -> None:
        stats = self._metrics.trigger(event.trigger_id, event.provider)
        stats.ignored += event.ignored
        stats.filtered += event.filtered
        stats.deduped += event.duplicates

    def _appended(self, event: Appended) -> None:
        self._metrics.append_observed(event.topic, event.seconds)

    def _accepted(self, event: Accepted) -> None:
        delivery = event.delivery
        stats = self._metrics.trigger(delivery.trigger_id, delivery.provider)
        stats.accepted += 1
        if delivery.dead is not None:
            stats.dead(delivery.dead.reason)

    def _settled(self, event: Settled) -> None:
        settlement = event.settlement
        stats = self._metrics.trigger(event.trigger_id, event.provider)
        stats.predicate_true += event.predicate_passed
        if settlement.succeeded:
            if settlement.result is None:
                stats.dispatched_skipped += 1
                stats.predicate_false += 1
            else:
                stats.dispatched_ok += 1
            if event.handler_kind != LOCAL:
                stats.sent[event.handler_kind, "skipped" if settlement.result is None else "succeeded"] += 1
            return
        if settlement.attempt is not None:
            failed = settlement.attempt.is_failure
            stats.dispatched_failed += failed
            stats.dispatched_again += not failed
            if event.handler_kind != LOCAL:
                stats.sent[event.handler_kind, "failed" if failed else "retry_after"] += 1
        if settlement.dead is not None:
            stats.dead(settlement.dead.reason)
        else:
            stats.retries += 1

    def _dead_lettered(self, event: DeadLettered) -> None:
        # What is redriven is not subtracted: a counter never goes down.
        self._metrics.trigger(event.trigger_id, event.provider).dead(event.reason, event.count)

    def _version_ended(self, event: VersionEnded) -> None:
        if event.is_last:
            self._metrics.forget([event.trigger_id], [event.path])
