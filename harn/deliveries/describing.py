"""Deliveries as the admin API and the commands give them: one entry of a list, one whole with its timeline. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import UNSET, structs

from harn.clocks import rfc3339
from harn.deliveries.model import (
    AttemptInfo,
    DeadGroupInfo,
    DeadLetters,
    DeliveryDetail,
    DeliveryInfo,
    DeliveryList,
    TimelineEntry,
)
from harn.deliveries.redaction import IsCredential, shown_event
from harn.deliveries.scan import Scan
from harn.errors import DeliveryUnknown
from harn.model.delivery import DEAD, DISCARDED, REPLAYED, RUNNING, UNFINISHED, Attempt
from harn.model.references import binding_key
from harn.store.lists import DeadGroup, ListedDelivery, WholeDelivery


def describe(delivery: ListedDelivery) -> DeliveryInfo:
    """Return a delivery as lists have it."""
    return DeliveryInfo(
        event_id=delivery.event_id,
        trigger_id=delivery.trigger_id,
        binding=binding_key(delivery.trigger_id, delivery.version),
        provider=delivery.provider,
        kind=delivery.kind,
        state=delivery.state.value,
        reason=delivery.reason,
        error_class=delivery.error_class,
        error=delivery.error,
        attempts=delivery.attempts,
        received_at=rfc3339(delivery.received_at),
        due_at=time_of(delivery.due_at),
        ended_at=time_of(delivery.ended_at),
        replay_of=delivery.replay_of,
        replayed_as=delivery.replayed_as,
    )


def time_of(seconds: float | None) -> str | None:
    """Return a time (seconds, Unix) as text, if there is one."""
    return None if seconds is None else rfc3339(seconds)


def describe_list(scan: Scan) -> DeliveryList:
    """Return what a scan has found."""
    more = not scan.is_at_end and scan.before is not None
    return DeliveryList(
        deliveries=tuple(map(describe, scan.found)),
        more=more,
        before=scan.before if more and scan.before is not None else UNSET,
        passed_over=scan.passed_over or UNSET,
        problem=scan.problem or UNSET,
    )


def describe_dead(groups: Iterable[DeadGroup]) -> DeadLetters:
    """Return dead letters in groups."""
    shown = tuple(
        DeadGroupInfo(
            trigger_id=group.trigger_id,
            reason=group.reason,
            error_class=group.error_class,
            count=group.count,
            first=rfc3339(group.first),
            last=rfc3339(group.last),
            example_id=group.example_id,
        )
        for group in groups
    )
    return DeadLetters(groups=shown, total=sum(group.count for group in shown))


def describe_whole(whole: WholeDelivery, is_credential: IsCredential) -> DeliveryDetail:
    """
    Return a delivery with its timeline and its event. Of a large body call it off the reactor's thread.

    :param is_credential: returns whether a value is a secret of the live generation.
    """
    delivery = whole.delivery
    known = structs.asdict(describe(delivery))
    del known["attempts"]
    return DeliveryDetail(
        **known,
        timeline=tuple(timeline(whole)),
        attempts=tuple(describe_attempt(delivery.trigger_id, each) for each in whole.attempts),
        result=None if whole.result is None else msgspec.json.decode(whole.result),
        event=shown_event(delivery, is_credential),
    )


def describe_attempt(trigger_id: str, attempt: Attempt) -> AttemptInfo:
    """Return an attempt with what is kept of it."""
    return AttemptInfo(
        number=attempt.number,
        binding=binding_key(trigger_id, attempt.version),
        started_at=rfc3339(attempt.started_at),
        ended_at=rfc3339(attempt.completed_at),
        outcome=attempt.outcome,
        error_class=attempt.error_class,
        error=attempt.error,
        traceback=attempt.traceback,
        log=tuple((attempt.output or "").splitlines()),
    )


def timeline(whole: WholeDelivery) -> Iterator[TimelineEntry]:
    """Yield what happened to a delivery, in order."""
    delivery, attempts = whole.delivery, whole.attempts
    received_at = rfc3339(delivery.received_at)
    yield TimelineEntry(at=received_at, what="received", event_id=delivery.replay_of or UNSET)
    yield TimelineEntry(at=received_at, what="accepted")
    for attempt, after in zip(attempts, (*attempts[1:], None), strict=False):
        yield _entry(delivery, attempt)
        if after is not None:
            yield TimelineEntry(
                at=rfc3339(attempt.completed_at), what="waiting", reason="retry", until=rfc3339(after.started_at)
            )
    if delivery.state is RUNNING:
        yield TimelineEntry(at=None, what=RUNNING.value, number=delivery.attempts + 1)
    elif delivery.state in UNFINISHED:
        since = attempts[-1].completed_at if attempts else delivery.received_at
        yield TimelineEntry(
            at=rfc3339(since),
            what=delivery.state.value,
            reason=delivery.reason or UNSET,
            until=time_of(delivery.due_at) or UNSET,
        )
    else:
        yield from _ends(delivery)


def _entry(delivery: ListedDelivery, attempt: Attempt) -> TimelineEntry:
    return TimelineEntry(
        at=rfc3339(attempt.started_at),
        what="attempt",
        binding=binding_key(delivery.trigger_id, attempt.version),
        number=attempt.number,
        seconds=round(max(0.0, attempt.completed_at - attempt.started_at), 3),
        outcome=attempt.outcome,
        error_class=attempt.error_class or UNSET,
        error=attempt.error or UNSET,
    )


def _ends(delivery: ListedDelivery) -> Iterator[TimelineEntry]:
    """Yield the end of a delivery, and, of a dead letter that was dealt with, what was done with it."""
    is_closed = delivery.state in (DISCARDED, REPLAYED)
    if is_closed and delivery.died_at is not None:
        yield TimelineEntry(at=rfc3339(delivery.died_at), what=DEAD.value, reason=delivery.reason or UNSET)
    yield TimelineEntry(
        at=time_of(delivery.ended_at),
        what=delivery.state.value,
        reason=UNSET if is_closed else delivery.reason or UNSET,
        event_id=delivery.replayed_as or UNSET,
    )


def only(event_id: str, found: Sequence[WholeDelivery]) -> WholeDelivery:
    """
    Return the delivery of an event out of those that were found.

    :raises DeliveryUnknown: there is none.
    """
    if not found:
        raise unknown(event_id)
    return found[-1]


def unknown(event_id: str) -> DeliveryUnknown:
    """Return the error for an id that no delivery has, which says what to do."""
    return DeliveryUnknown(
        f"no delivery has the id {event_id!r}; `harn orchestrator deliveries` lists them, and with"
        f" --where \"event.dedupe_key == '...'\" finds one by its sender's id"
    )
