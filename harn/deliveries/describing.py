"""
Descriptions of deliveries for users: lists, timelines, groups of dead letters; without secrets.

Credentials and signatures are redacted in the headers and in the body of an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field, structs

from harn.clocks import rfc3339
from harn.model.delivery import DEAD, DISCARDED, REPLAYED, RUNNING, SKIPPED, UNFINISHED, Attempt
from harn.model.display import (
    REDACTED,
    SecretSet,
    holds_credential,
    is_signature,
    redact,
    redacted_event,
    shown_value,
)
from harn.model.event import Envelope, TriggerEvent, decode_envelope, is_too_deep
from harn.model.references import binding_key
from harn.operations.model import Result
from harn.store.deliveries import DeadGroup, ListedDelivery, WholeDelivery

if TYPE_CHECKING:
    from harn.deliveries.selection import Scan


def envelope_of(delivery: ListedDelivery) -> Envelope | None:
    """Return the event's envelope; with the body as bytes if it cannot be written as JSON; None if it is damaged."""
    try:
        envelope = decode_envelope(delivery.envelope)
    except msgspec.MsgspecError:
        return None
    return structs.replace(envelope, body_format="bytes") if is_too_deep(delivery.body) else envelope


def event_document(delivery: ListedDelivery) -> dict[str, Any]:
    """Return the event for an expression: headers whose names are those of credentials are redacted."""
    envelope = envelope_of(delivery)
    if envelope is None:
        return _damaged(delivery)
    event = TriggerEvent(envelope, delivery.body).to_dict()
    event["headers"] = redact(event["headers"])
    return event


def shown_event(delivery: ListedDelivery, known: SecretSet) -> dict[str, Any]:
    """Return the event as it is shown: without secrets and signatures; with its bytes only if they contain none."""
    envelope = envelope_of(delivery)
    if envelope is None:
        return _damaged(delivery)
    event = redacted_event(TriggerEvent(envelope, delivery.body).to_dict(), known)
    event["headers"] = shown_headers(event["headers"], known)
    return event


def shown_headers(headers: dict[str, str], known: SecretSet) -> dict[str, str]:
    """Return headers as they are shown."""
    return {name: REDACTED if is_signature(name) else value for name, value in redact(headers, known).items()}


def shown_body(envelope: Envelope, body: bytes, known: SecretSet) -> bytes:
    """
    Return a body as it is shown: the same bytes if no secret is in it; else JSON is encoded again without its secrets,
    and any other body is replaced as a whole.
    """
    raw = TriggerEvent(envelope, body).provider_payload["raw"]
    shown = shown_value(raw, known)
    if shown == raw and not holds_credential(body, known):
        return body
    if envelope.body_format == "json" and shown != raw:
        return msgspec.json.encode(shown)
    return REDACTED.encode("ascii")


def _damaged(delivery: ListedDelivery) -> dict[str, Any]:
    return {"id": delivery.event_id, "provider": delivery.provider, "kind": delivery.kind}


Text = str | None
Time = str | None


class DeliveryInfo(Result, frozen=True, kw_only=True):
    """One delivery. Times are RFC 3339, UTC."""

    event_id: str
    trigger_id: str
    binding: Annotated[str, Meta(description="Trigger and version, for example gh@v2.")]
    provider: str
    kind: str
    state: Annotated[str, Meta(description="waiting, ready, running, done, skipped, dead, discarded or replayed.")]
    reason: Annotated[
        Text, Meta(description="Why it waits (retry, paused, circuit_open), was skipped, or is or was a dead letter.")
    ]
    skip_reason: Annotated[str, Meta(description="The same reason, of one that was skipped.")] | UnsetType = UNSET
    error_class: Text
    error: Annotated[Text, Meta(description="Of the dead letter, or of the last attempt if that failed.")]
    attempts: int
    received_at: str
    due_at: Annotated[Time, Meta(description="When what waits may begin; null where no time is known.")]
    ended_at: Time
    replay_of: Annotated[Text, Meta(description="The event that this delivery repeats.")]
    replayed_as: Annotated[Text, Meta(description="The event of the delivery that repeated this one.")]


class DeliveryList(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Deliveries, the newest first."""

    deliveries: tuple[DeliveryInfo, ...]
    more: Annotated[bool, Meta(description="Whether the list continues.")]
    before: Annotated[int, Meta(description="Where it continues: the option of the next request.")] | UnsetType = UNSET
    passed_over: (
        Annotated[int, Meta(description="Deliveries on which the expression could not be evaluated.")] | UnsetType
    ) = UNSET
    problem: Annotated[str, Meta(description="Why, for the first of them.")] | UnsetType = UNSET


class AttemptInfo(Struct, frozen=True, kw_only=True):
    """One attempt; its traceback and its last lines are kept only if it failed."""

    number: int
    binding: str
    started_at: str
    ended_at: str
    outcome: str
    error_class: Text
    error: Text
    traceback: Text
    log: tuple[str, ...]


class TimelineEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Something that happened to a delivery.

    ``what`` is ``received``, ``accepted``, ``attempt``, or a state; ``seconds`` is how long an attempt took.
    """

    at: Time
    what: str
    binding: str | UnsetType = UNSET
    number: int | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    outcome: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    until: str | UnsetType = UNSET
    error_class: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    event_id: str | UnsetType = UNSET


class DeliveryDetail(DeliveryInfo, frozen=True, kw_only=True):
    """A delivery with all that is kept of it, secrets and signatures redacted."""

    timeline: tuple[TimelineEntry, ...]
    attempts: tuple[AttemptInfo, ...] = field()  # type: ignore[assignment]  # here they are listed, elsewhere counted
    result: Any
    event: dict[str, Any]
    otel_trace_id: (
        Annotated[str, Meta(description="Its trace, 32 hexadecimal digits; left out while traces are off.")] | UnsetType
    ) = UNSET


class DeadGroupInfo(Struct, frozen=True, kw_only=True):
    """Dead letters of one trigger with the same reason and class of error."""

    trigger_id: str
    reason: str
    error_class: str
    count: int
    first: Annotated[str, Meta(description="When the first of them died.")]
    last: str
    example_id: Annotated[str, Meta(description="The event id of the newest.")]


class DeadLetters(Result, frozen=True, kw_only=True):
    """
    Dead letters in groups; the group that was added to last comes first.

    ``total`` counts all dead letters, and ``matched`` all groups, also those that are not listed.
    """

    groups: tuple[DeadGroupInfo, ...]
    total: int
    matched: int = 0


def describe(delivery: ListedDelivery) -> DeliveryInfo:
    """Return a delivery in the form of lists."""
    return DeliveryInfo(
        event_id=delivery.event_id,
        trigger_id=delivery.trigger_id,
        binding=binding_key(delivery.trigger_id, delivery.version),
        provider=delivery.provider,
        kind=delivery.kind,
        state=delivery.state.value,
        reason=delivery.reason,
        skip_reason=delivery.reason if delivery.state is SKIPPED and delivery.reason else UNSET,
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
    """Return the result of a scan."""
    more = not scan.is_at_end and scan.before is not None
    return DeliveryList(
        deliveries=tuple(map(describe, scan.found)),
        more=more,
        before=scan.before if more and scan.before is not None else UNSET,
        passed_over=scan.passed_over or UNSET,
        problem=scan.problem or UNSET,
    )


def describe_dead(groups: Sequence[DeadGroup], offset: int = 0, limit: int | None = None) -> DeadLetters:
    """Return dead letters in groups: after the first ``offset`` of them, at most ``limit``."""
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
        for group in groups[offset : None if limit is None else offset + limit]
    )
    return DeadLetters(groups=shown, total=sum(group.count for group in groups), matched=len(groups))


def describe_whole(whole: WholeDelivery, known: SecretSet) -> DeliveryDetail:
    """
    Return a delivery with its timeline and its event. Of a large body call it off the reactor's thread.

    :param known: the secrets of the live generation.
    """
    delivery = whole.delivery
    described = structs.asdict(describe(delivery))
    del described["attempts"]
    return DeliveryDetail(
        **described,
        timeline=tuple(timeline(whole)),
        attempts=tuple(describe_attempt(delivery.trigger_id, each) for each in whole.attempts),
        result=None if whole.result is None else msgspec.json.decode(whole.result),
        event=shown_event(delivery, known),
    )


def describe_attempt(trigger_id: str, attempt: Attempt) -> AttemptInfo:
    """Return the description of an attempt."""
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
    """Yield the entries of a delivery's timeline, in order."""
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
    """Yield the entry for the end of a delivery; for a dead letter that was replayed or discarded, one for that."""
    is_closed = delivery.state in (DISCARDED, REPLAYED)
    if is_closed and delivery.died_at is not None:
        yield TimelineEntry(at=rfc3339(delivery.died_at), what=DEAD.value, reason=delivery.reason or UNSET)
    yield TimelineEntry(
        at=time_of(delivery.ended_at),
        what=delivery.state.value,
        reason=UNSET if is_closed else delivery.reason or UNSET,
        event_id=delivery.replayed_as or UNSET,
    )
