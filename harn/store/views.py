"""Deliveries and attempts as records: what the topics of deliveries show, whatever database keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from attrs import frozen
from msgspec import structs

from harn.clocks import rfc3339
from harn.model.delivery import Attempt, DeadLetter, StoredDelivery
from harn.model.event import TriggerEvent, decode_envelope
from harn.model.headers import redact
from harn.model.identifiers import binding_key
from harn.model.json_text import is_too_deep
from harn.store.model import Record
from harn.store.topics import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX

HANDLER_KIND = "local"
"""Where the attempts of today's deliveries run; an attempt does not say so itself yet."""

_OUTBOX_KINDS = {"success": "dispatch_succeeded", "skipped": "dispatch_skipped"}


@frozen(kw_only=True)
class RecordedAttempt:
    """
    One attempt with what its records say of its delivery.

    :ivar number: its place among all attempts.
    :ivar result: the delivery's result as JSON, if it has one.
    """

    number: int
    event_id: str
    trigger_id: str
    provider: str
    kind: str
    replay_of: str | None
    attempt: Attempt
    result: bytes | None


def envelope_record(delivery: StoredDelivery) -> Record:
    """Show an accepted delivery in `INBOX`; its number is the delivery's id."""
    return Record(
        number=delivery.delivery_id,
        topic=INBOX,
        kind="event_ingested",
        payload={
            "trigger_id": delivery.trigger_id,
            "binding_version": delivery.version,
            "event": _event(delivery),
        },
        headers=_headers(delivery, delivery.version),
        occurred_at=delivery.received_at,
    )


def outbox_record(row: RecordedAttempt) -> Record:
    """Show a finished attempt in `OUTBOX`."""
    attempt = row.attempt
    kind = _OUTBOX_KINDS.get(attempt.outcome, "dispatch_failed")
    payload: dict[str, Any] = {
        "event_id": row.event_id,
        "attempt": attempt.number,
        "trigger_id": row.trigger_id,
        "binding_key": binding_key(row.trigger_id, attempt.version),
        "handler_kind": HANDLER_KIND,
        "target_uri": None,
        "replay_of_event_id": row.replay_of,
    }
    if kind == "dispatch_succeeded":
        payload["result"] = None if row.result is None else msgspec.json.decode(row.result)
    elif kind == "dispatch_skipped":
        payload["skip_stage"] = "predicate"
    else:
        payload["error"] = attempt.error
    return Record(
        number=row.number,
        topic=OUTBOX,
        kind=kind,
        payload=payload,
        headers=_attempt_headers(row),
        occurred_at=attempt.completed_at,
    )


def attempt_record(row: RecordedAttempt) -> Record:
    """Show a finished attempt in `ATTEMPTS`."""
    return Record(
        number=row.number,
        topic=ATTEMPTS,
        kind="attempt_recorded",
        payload={
            "trigger_id": row.trigger_id,
            "binding_key": binding_key(row.trigger_id, row.attempt.version),
            "event_id": row.event_id,
            "handler_kind": HANDLER_KIND,
            **_attempt(row.attempt),
        },
        headers=_attempt_headers(row),
        occurred_at=row.attempt.completed_at,
    )


def dead_record(
    number: int, delivery: StoredDelivery, dead: DeadLetter, died_at: float, attempts: Sequence[Attempt]
) -> Record:
    """
    Show a dead letter in `DEAD_LETTERS`.

    :param number: its place in the order of dying.
    :param died_at: seconds, Unix.
    """
    return Record(
        number=number,
        topic=DEAD_LETTERS,
        kind="dlq_moved",
        payload={
            "trigger_id": delivery.trigger_id,
            "binding_key": binding_key(delivery.trigger_id, delivery.version),
            "event": _event(delivery),
            "attempt_count": delivery.attempts,
            "final_error": dead.error,
            "error_class": dead.error_class,
            "reason": dead.reason,
            "attempts": [_attempt(attempt) for attempt in attempts],
        },
        headers=_headers(delivery, delivery.version),
        occurred_at=died_at,
    )


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "started_at": rfc3339(attempt.started_at),
        "completed_at": rfc3339(attempt.completed_at),
        "outcome": attempt.outcome,
        "error_class": attempt.error_class,
        "error_msg": attempt.error,
    }


def _event(delivery: StoredDelivery) -> dict[str, Any]:
    try:
        envelope = decode_envelope(delivery.envelope)
        if is_too_deep(delivery.body):
            # A handler may be able to read it; whoever writes the record as JSON may not.
            envelope = structs.replace(envelope, body_format="bytes")
        event = TriggerEvent(envelope, delivery.body).to_dict()
    except msgspec.MsgspecError:
        # A topic stays readable although one envelope is not.
        return {"id": delivery.event_id, "provider": delivery.provider, "kind": delivery.kind}
    event["headers"] = redact(event["headers"])
    return event


def _headers(row: StoredDelivery | RecordedAttempt, version: int) -> dict[str, str]:
    headers = {
        "event_id": row.event_id,
        "provider": row.provider,
        "kind": row.kind,
        "trigger_id": row.trigger_id,
        "binding_key": binding_key(row.trigger_id, version),
    }
    if row.replay_of is not None:
        headers["replay_of_event_id"] = row.replay_of
    return headers


def _attempt_headers(row: RecordedAttempt) -> dict[str, str]:
    headers = _headers(row, row.attempt.version)
    headers["handler_kind"] = HANDLER_KIND
    headers["attempt"] = str(row.attempt.number)
    return headers
