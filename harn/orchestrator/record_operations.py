"""The operation that reads the records of a topic, without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from harn.model.display import NO_SECRETS, REDACTED, SecretSet, redacted_event
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.store.event_log import HANDSHAKE_CAPTURED, OURS, check_known

if TYPE_CHECKING:
    from harn.orchestrator.operations import ServerService
    from harn.store.event_log import Record


class ReadEvents(Parameters, frozen=True, kw_only=True):
    """Which records."""

    topic: Annotated[str, Meta(description="For example trigger.outbox.")]
    after: Annotated[int, Meta(ge=0, description="Only records numbered above N.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N records.")] = 100


class RecordInfo(Result, frozen=True, kw_only=True):
    """One record."""

    number: int
    kind: str
    payload: Any
    headers: dict[str, str]
    occurred_at: Annotated[float, Meta(description="Seconds, Unix.")]


class RecordPage(Result, frozen=True, kw_only=True):
    """A piece of a topic, and the number of its newest record, 0 for none."""

    topic: str
    records: tuple[RecordInfo, ...]
    latest: int


@operation(
    "events.read",
    role=Role.READ,
    route=Get("/events/{topic}"),
    example={"topic": "trigger.outbox", "after": 0, "limit": 100},
)
async def read_events(server: ServerService, caller: Caller, wanted: ReadEvents) -> RecordPage:
    """
    Read the records of a topic, without secrets. One that a sender has brought is shown to an admin alone.

    :raises RouteUnknown: there is no such topic.
    """
    records = await server.store.event_log.read(wanted.topic, wanted.after, wanted.limit)
    if not records and wanted.topic not in OURS:
        check_known(wanted.topic, await server.store.event_log.topics())
    latest = await server.store.event_log.latest(wanted.topic)
    live = server.coordinator.current
    known = NO_SECRETS if live is None else live.inputs.known
    shown = await server.threads.call(_shown, records, known, caller)
    return RecordPage(topic=wanted.topic, records=shown, latest=latest)


def _shown(records: Sequence[Record], known: SecretSet, caller: Caller) -> tuple[RecordInfo, ...]:
    """Return the descriptions of records, without secrets. Of large bodies call it in a thread."""
    return tuple(describe_record(each, _without_secrets(known, caller, each)) for each in records)


def describe_record(record: Record, payload: Any) -> RecordInfo:
    """Return the description of a record, with this payload."""
    return RecordInfo(
        number=record.number,
        kind=record.kind,
        payload=payload,
        headers=record.headers,
        occurred_at=record.occurred_at,
    )


def _without_secrets(known: SecretSet, caller: Caller, record: Record) -> Any:
    """Return a record's payload; known secrets in its event are redacted."""
    if record.kind == HANDSHAKE_CAPTURED and not caller.role.covers(Role.ADMIN):
        return {**record.payload, "value": REDACTED}
    event = record.payload.get("event")
    if not isinstance(event, dict) or "provider_payload" not in event:
        return record.payload
    return {**record.payload, "event": redacted_event(event, known)}
