"""
Subscribers to lifecycle events: the counts by trigger and by binding version, and the log of deliveries that go well.

While no output takes records of single deliveries, an event costs the log one look at a flag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harn.lifecycle import (
    CIRCUIT_CLOSED,
    CIRCUIT_HALF_OPEN,
    CIRCUIT_OPEN,
    Accepted,
    Appended,
    Backpressure,
    Chosen,
    CircuitChanged,
    DeadLettered,
    Dropped,
    InterpreterRestarted,
    Lifecycle,
    Received,
    Redriven,
    RequestRefused,
    Settled,
    SettledDelivery,
    VersionEnded,
)
from harn.model.delivery import PREDICATE, UNFINISHED, Attempt, counts_against_code
from harn.model.event import decode_envelope
from harn.model.references import LOCAL
from harn.observability.counts import TriggerCounts
from harn.observability.logs import deliveries
from harn.observability.metrics import Metrics

CIRCUIT_ACTIONS = {CIRCUIT_OPEN: "opened", CIRCUIT_HALF_OPEN: "half_open_probe", CIRCUIT_CLOSED: "closed"}
"""Actions of the dimension ``circuit``, by the state that a circuit enters."""


class Counting:
    """
    Adds to `Metrics`; nothing else counts deliveries.

    What every delivery passes looks its counts up in the dicts of `Metrics`, which makes them where they are missing.
    """

    def __init__(self, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._metrics = metrics
        self._triggers, self._versions, self._touched = metrics.triggers, metrics.versions, metrics.touched
        lifecycle.subscribe(Received, self._received)
        lifecycle.subscribe(Chosen, self._chosen)
        lifecycle.subscribe(RequestRefused, self._refused)
        lifecycle.subscribe(Backpressure, self._backpressure)
        lifecycle.subscribe(CircuitChanged, self._circuit_changed)
        lifecycle.subscribe(Dropped, self._dropped)
        lifecycle.subscribe(Appended, self._appended)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)
        lifecycle.subscribe(Redriven, self._redriven)
        lifecycle.subscribe(VersionEnded, self._version_ended)
        lifecycle.subscribe(InterpreterRestarted, self._interpreter_restarted)

    def _received(self, event: Received) -> None:
        counts = self._triggers.get(event.trigger_id)
        if counts is None or counts.provider != event.provider:
            counts = self._metrics.trigger(event.trigger_id, event.provider)
        counts.received += 1
        if event.binding is not None:
            (self._versions.get(event.binding) or self._metrics.version(event.binding)).received += 1

    def _chosen(self, event: Chosen) -> None:
        for binding in event.bindings:
            self._metrics.version(binding).received += 1

    def _refused(self, event: RequestRefused) -> None:
        self._metrics.trigger(event.trigger_id, event.provider).refuse(event.status)
        self._touched.add(event.trigger_id)
        for binding in event.bindings:
            self._metrics.version(binding).refused += 1

    def _backpressure(self, event: Backpressure) -> None:
        self._metrics.backpressure(event.dimension, event.action)

    def _circuit_changed(self, event: CircuitChanged) -> None:
        self._metrics.backpressure("circuit", CIRCUIT_ACTIONS[event.state])

    def _dropped(self, event: Dropped) -> None:
        counts = self._metrics.trigger(event.trigger_id, event.provider)
        counts.ignored += event.ignored
        counts.filtered += event.filtered
        counts.deduped += event.duplicates

    def _appended(self, event: Appended) -> None:
        self._metrics.appends_of(event.topic).observe_all(event.waits)

    def _accepted(self, event: Accepted) -> None:
        numbers = Counter([each.delivery.trigger_id for each in event.deliveries])
        self._touched.update(numbers)
        for trigger_id, number in numbers.items():
            counts = self._triggers.get(trigger_id)
            if counts is None:
                news = (each.delivery for each in event.deliveries)
                provider = next(new.provider for new in news if new.trigger_id == trigger_id)
                counts = self._metrics.trigger(trigger_id, provider)
            counts.accepted += number
        self._metrics.accepted(event.deliveries[0].delivery_id, event.deliveries[-1].delivery_id)
        for each in event.dead:
            new = each.delivery
            assert new.dead is not None
            counts = self._metrics.trigger(new.trigger_id, new.provider)
            counts.last_failure = new.received_at
            counts.dead(new.dead.reason)
            self._metrics.version(each.binding).dead += 1

    def _settled(self, event: Settled) -> None:
        successes: dict[str, list[tuple[SettledDelivery, Attempt]]] = {}
        for each in event.deliveries:
            attempt = each.settlement.attempt
            if attempt is not None and each.settlement.result is not None and each.handler_kind == LOCAL:
                successes.setdefault(each.binding, []).append((each, attempt))  # as nearly all
            else:
                self._settled_one(each)
        for together in successes.values():
            self._succeeded(together)

    def _succeeded(self, together: Sequence[tuple[SettledDelivery, Attempt]]) -> None:
        """Count handlers of one version that returned."""
        event, attempt = together[-1]
        counts = self._triggers.get(event.trigger_id) or self._metrics.trigger(event.trigger_id, event.provider)
        version = self._versions.get(event.binding) or self._metrics.version(event.binding)
        version.attempted += len(together)
        version.dispatched += len(together)
        self._touched.add(event.trigger_id)
        counts.predicate_true += sum([each.predicate_passed for each, _ in together])
        counts.dispatched_ok += len(together)
        counts.last_success = attempt.completed_at
        counts.handler_seconds.observe_all([max(0.0, run.completed_at - run.started_at) for _, run in together])
        counts.delivery_seconds.observe_all([max(0.0, run.completed_at - each.received_at) for each, run in together])

    def _settled_one(self, event: SettledDelivery) -> None:
        settlement = event.settlement
        attempt = settlement.attempt
        trigger_id = event.trigger_id
        counts = self._triggers.get(trigger_id) or self._metrics.trigger(trigger_id, event.provider)
        if attempt is None and settlement.dead is None:
            # It ended before it began, perhaps on a version that ended long ago: that has no counts any more.
            if settlement.skip_reason is not None:
                counts.skip(settlement.skip_reason)
            return
        version = self._versions.get(event.binding) or self._metrics.version(event.binding)
        counts.predicate_true += event.predicate_passed
        if attempt is not None:
            version.attempted += 1
        if settlement.succeeded:
            version.dispatched += 1
            self._touched.add(trigger_id)
            self._done(event, counts)
            return
        if attempt is not None:
            self._ended_otherwise(event, attempt, counts)
            version.attempts_failed += counts_against_code(attempt)
            version.failed += attempt.is_failure
        if settlement.dead is not None:
            version.dead += 1
            counts.dead(settlement.dead.reason)
        elif settlement.skip_reason is not None:
            counts.skip(settlement.skip_reason)
        elif settlement.state in UNFINISHED:
            counts.retries += 1

    def _ended_otherwise(self, event: SettledDelivery, attempt: Attempt, counts: TriggerCounts) -> None:
        """Count an attempt that failed, or that its handler ended by ``RetryAfter``."""
        is_failure = attempt.is_failure
        if is_failure:
            counts.last_failure = attempt.completed_at
            self._touched.add(event.trigger_id)
        counts.dispatched_failed += is_failure
        counts.dispatched_again += not is_failure
        counts.handler_seconds.observe(max(0.0, attempt.completed_at - attempt.started_at))
        if event.handler_kind != LOCAL:
            counts.sent[event.handler_kind, "failed" if is_failure else "retry_after"] += 1

    @staticmethod
    def _done(event: SettledDelivery, counts: TriggerCounts) -> None:
        attempt = event.settlement.attempt
        is_skipped = event.settlement.result is None
        if event.handler_kind != LOCAL:
            counts.sent[event.handler_kind, "skipped" if is_skipped else "succeeded"] += 1
        if is_skipped:
            counts.dispatched_skipped += 1
            counts.predicate_false += 1
            counts.skip(PREDICATE)
            return
        counts.dispatched_ok += 1
        if attempt is not None:
            counts.last_success = attempt.completed_at
            counts.handler_seconds.observe(max(0.0, attempt.completed_at - attempt.started_at))
            counts.delivery_seconds.observe(max(0.0, attempt.completed_at - event.received_at))

    def _dead_lettered(self, event: DeadLettered) -> None:
        self._metrics.trigger(event.trigger_id, event.provider).dead(event.reason, event.count)
        if event.binding is not None:
            self._metrics.version(event.binding).dead += event.count

    def _redriven(self, event: Redriven) -> None:
        # The trigger's counter of deaths stays: a counter never goes down.
        version = self._metrics.versions.get(event.binding)
        if version is not None:  # else it has ended
            version.dead = max(0, version.dead - event.count)

    def _version_ended(self, event: VersionEnded) -> None:
        self._metrics.remove_version(event.binding)
        if event.is_last:
            self._metrics.remove([event.trigger_id], [event.path])

    def _interpreter_restarted(self, event: InterpreterRestarted) -> None:
        self._metrics.interpreter_restarts += 1


def log_deliveries(lifecycle: Lifecycle) -> None:
    """Log each delivery that is accepted or settled from now on."""
    lifecycle.subscribe(Accepted, _accepted)
    lifecycle.subscribe(Settled, _settled)


def _accepted(event: Accepted) -> None:
    if not deliveries.active:
        return
    for each in event.deliveries:
        new = each.delivery
        deliveries.note(
            "trigger event accepted",
            component="listener",
            trace_id=decode_envelope(new.envelope).trace_id,
            trigger_id=new.trigger_id,
            binding=each.binding,
            event_id=new.event_id,
        )


def _settled(event: Settled) -> None:
    if not deliveries.active:
        return
    for each in event.deliveries:
        settlement = each.settlement
        attempt = settlement.attempt
        if attempt is None or attempt.error_class is not None:
            continue  # what failed has a line in every format: see `harn.dispatch.failure_log`
        deliveries.note(
            "delivery {state}",
            component="dispatcher",
            state=settlement.state,
            trace_id=decode_envelope(each.envelope).trace_id,
            trigger_id=each.trigger_id,
            binding=each.binding,
            event_id=each.event_id,
            attempt=settlement.attempts,
            outcome=attempt.outcome,
        )
