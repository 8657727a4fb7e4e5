"""
The event log: the append-only record, by topic.

The topics of deliveries are views: records made from the rows of deliveries and attempts, whatever database keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field, structs
from zope.interface import Interface

from harn.clocks import rfc3339
from harn.errors import RouteUnknown
from harn.model.delivery import Attempt, DeadLetter, StoredDelivery
from harn.model.display import redacted_event
from harn.model.event import TriggerEvent, decode_envelope, is_too_deep
from harn.model.references import LOCAL, binding_key, scheme_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted

INBOX = "trigger.inbox.envelopes"
OUTBOX = "trigger.outbox"
ATTEMPTS = "trigger.attempts"
DEAD_LETTERS = "trigger.dlq"

VIEWS = (ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX)
OURS = (*VIEWS, "audit.operations", "orchestrator.lifecycle", "orchestrator.manifest", "orchestrator.servers")
"""Topics that there are also while nothing is in them."""

HANDSHAKE_CAPTURED = "handshake_captured"
"""The kind of a record whose ``value`` is a secret: see `harn.listener.handshakes`."""

Payload = Mapping[str, Any] | msgspec.Struct
"""What a record holds, to be encoded as a JSON object."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_encoder = msgspec.json.Encoder()

_OUTBOX_KINDS = {"success": "dispatch_succeeded", "skipped": "dispatch_skipped"}


class Record(Struct, frozen=True, kw_only=True):
    """
    One record of a topic.

    :ivar number: rises within the topic; may have gaps.
    :ivar occurred_at: seconds, Unix.
    """

    number: int
    topic: str
    kind: str
    payload: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    occurred_at: float


class IEventLog(Interface):
    """
    The append-only record, by topic.

    Topics of deliveries (``trigger.inbox.envelopes``, ``trigger.outbox``, ``trigger.attempts``, ``trigger.dlq``) are
    read-only views of the delivery tables.
    """

    def append(topic: str, kind: str, payload: Payload, headers: Mapping[str, str] = {}) -> Deferred[int]:
        """
        Append one record durably; return its number.

        :raises ValueError: at once: the topic is a view, or its name is not of letters, digits, ``.``, ``_``, ``-``.
        :raises TypeError: immediately: the payload has no form in JSON.
        """

    def read(topic: str, after: int, limit: int) -> Deferred[Sequence[Record]]:
        """
        Return records with a number above ``after``, by number. An unknown topic is empty.

        Fewer than ``limit`` where events are large; only an empty answer means that there are no more.
        """

    def latest(topic: str) -> Deferred[int]:
        """Return the number of the newest record, 0 for none."""

    def topics() -> Deferred[Sequence[str]]:
        """Return the names of all topics with at least one record."""


def check_appendable(topic: str) -> None:
    """
    Refuse a topic that no record can be appended to.

    :raises ValueError: the name has other characters than letters, digits, ``.``, ``_``, ``-``, or is a view's.
    """
    if _NAME.fullmatch(topic) is None:
        raise ValueError(f"a topic must consist of letters, digits, '.', '_' and '-', got {topic!r}")
    if topic in VIEWS:
        raise ValueError(f"topic {topic} shows the deliveries; nothing can be appended to it")


def check_known(topic: str, filled: Iterable[str]) -> None:
    """
    Refuse to read a topic that there is not.

    :param filled: those with records.
    :raises RouteUnknown: it is not one of `OURS`, and has no records; the message says which topics exist.
    """
    known = sorted({*OURS, *filled})
    if topic not in known:
        raise RouteUnknown(f"there is no topic {topic!r}; there are: {', '.join(known)}")


def encode_record(payload: Payload, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """
    Encode a record's payload and headers as JSON, immediately, so that later changes to them do not count.

    :raises TypeError: the payload holds something that JSON has no form for.
    """
    return _encoder.encode(payload), _encoder.encode(headers)


class RecordedAttempt(Struct, frozen=True, kw_only=True):
    """
    One attempt with what its records say of its delivery.

    :ivar number: its place among all attempts.
    :ivar result: the delivery's result as JSON, if it has one.
    :ivar handler: of the version that made it, as its manifest names it; None where that version is not kept any more.
    """

    number: int
    event_id: str
    trigger_id: str
    provider: str
    kind: str
    replay_of: str | None
    attempt: Attempt
    result: bytes | None
    handler: str | None = None

    @property
    def handler_kind(self) -> str:
        """The scheme of its destination; ``local`` for a function."""
        return scheme_of(self.handler or "")

    @property
    def target_uri(self) -> str | None:
        """The destination, where that is an address."""
        return None if self.handler_kind == LOCAL else self.handler


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
        "handler_kind": row.handler_kind,
        "target_uri": row.target_uri,
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
            "handler_kind": row.handler_kind,
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
        return redacted_event(TriggerEvent(envelope, delivery.body).to_dict())
    except msgspec.MsgspecError:
        # A topic stays readable although one envelope is not.
        return {"id": delivery.event_id, "provider": delivery.provider, "kind": delivery.kind}


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
    headers["handler_kind"] = row.handler_kind
    headers["attempt"] = str(row.attempt.number)
    return headers
