"""What a settled delivery adds to the counts of its version and trigger, and what its version has in hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from twisted.logger import Logger

from harn.dispatch.delivery import Delivery
from harn.errors import (
    HandlerRaised,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.model.delivery import DONE, Settlement, Workload
from harn.observability.metrics import Metrics
from harn.triggers.binding import BindingVersion

log = Logger(namespace="harn.dispatch")

FAILURES = frozenset(
    each.error_class
    for each in (HandlerRaised, HandlerTimedOut, InterpreterDied, PredicateRaised, ResultInvalid, ResultTooLarge)
)
"""Error classes of attempts that count against the code; what a handler asks for (Reject, RetryAfter) does not."""


def workload(
    bindings: Iterable[BindingVersion], running: Iterable[Delivery], queued: Iterable[Delivery]
) -> Mapping[BindingVersion, Workload]:
    """Count for each version what memory holds of it; and what the store alone holds."""
    runs = Counter(delivery.binding for delivery in running)
    waits = Counter(delivery.binding for delivery in queued)
    return {each: Workload(runs[each], waits[each] + max(0, each.stored)) for each in bindings}


def count_settled(metrics: Metrics, delivery: Delivery, settlement: Settlement) -> None:
    """Count what is on disk now; ``delivery`` stands as before."""
    binding = delivery.binding
    stats = metrics.trigger(binding.id, binding.spec.provider)
    if binding.predicate is not None and settlement.passed and not delivery.passed:
        stats.predicate_true += 1
    attempt = settlement.attempt
    if attempt is not None:
        binding.attempted += 1
        binding.attempts_failed += attempt.error_class in FAILURES
    if settlement.state == DONE:
        binding.dispatched += 1
        if settlement.result is None:
            stats.dispatched_skipped += 1
            stats.predicate_false += 1
        else:
            stats.dispatched_ok += 1
        return
    if attempt is not None:
        binding.failed += 1
        stats.dispatched_failed += 1
    if settlement.dead is not None:
        binding.dead += 1
        stats.dead(settlement.dead.reason)
    else:
        stats.retries += 1


def let_judge(binding: BindingVersion) -> None:
    """Tell a version's judge of one more attempt; what it raises is its own affair."""
    judge = binding.judge
    if judge is None:
        return
    try:
        judge(binding)
    except Exception:
        log.failure("the judge of {binding} failed", binding=binding.key)
