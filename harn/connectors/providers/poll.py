"""
The provider ``poll``: a function of the user's looks for news on a schedule, from where it stopped the last time.

Its connector starts nothing: `harn.schedules` calls the function, in the interpreter of the live generation, and keeps
what it returns: its events and the next cursor, in one durable unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Struct
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.connectors import bodies
from harn.connectors.interfaces import PUBLIC, ConnectorContext, IConnectorPlugin, NormalizedEvent
from harn.connectors.providers.cron import Idle
from harn.connectors.schedule import (
    UTC,
    CronSchedule,
    IntervalSchedule,
    Schedule,
    check_schedule,
    check_timezone,
    seconds_of,
)
from harn.errors import PayloadInvalid
from harn.manifest.interfaces import SettingProblem
from harn.manifest.tables import StructSchema
from harn.model.event import UNSIGNED
from harn.model.quantities import parse_duration
from harn.wire import canonical_json, digest_value

POLL = "poll"
LEAST = 1.0
"""Seconds of the shortest interval."""
LONGEST_KEY = 1000
MOST_EVENTS = 2000
"""Events of one call: they are read and kept in one turn of the reactor."""


class PollSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a trigger that polls, beside ``poll``: the function."""

    every: Annotated[str | None, msgspec.Meta(description="How often the function is called, at least 1s.")] = None
    schedule: Annotated[
        str | None, msgspec.Meta(description="When it is called, as a schedule of cron, instead of every.")
    ] = None
    timezone: Annotated[str, msgspec.Meta(description="The IANA name of the zone whose clocks the schedule means.")] = (
        UTC
    )
    jitter: Annotated[
        str | None,
        msgspec.Meta(description="Each trigger is later by a time of its own, always the same, up to this duration."),
    ] = None

    @classmethod
    def of(cls, table: Any) -> PollSettings:
        """Convert the checked keys, given as plain values or as this class."""
        return msgspec.convert(table, cls, from_attributes=True)

    def times(self) -> Schedule:
        """Return when it is called."""
        if self.schedule is not None:
            return CronSchedule(self.schedule, self.timezone)
        return IntervalSchedule(parse_duration(self.every or "1m"))

    def longest_delay(self) -> float:
        """Return ``jitter`` in seconds."""
        return 0.0 if self.jitter is None else parse_duration(self.jitter)

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values."""
        found: list[SettingProblem] = []
        if (self.every is None) == (self.schedule is None):
            message = "is missing" if self.every is None else "is given, and so is schedule"
            hint = 'write for example every = "1m", or a schedule' if self.every is None else "keep one of them"
            found.append(SettingProblem(key="every", message=message, hint=hint))
        if self.every is not None:
            found += seconds_of(self.every, "every", LEAST)[1]
        if self.schedule is not None:
            found += check_schedule(self.schedule)
        if self.jitter is not None:
            found += seconds_of(self.jitter, "jitter")[1]
        return [*found, *check_timezone(self.timezone)]


class PolledEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One event as the function returns it.

    :ivar payload: any JSON value.
    :ivar dedupe_key: by which it is recognized when it is found again.
    :ivar occurred_at: RFC 3339, with the offset from UTC.
    """

    payload: msgspec.Raw
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = POLL
    dedupe_key: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_KEY)] | None = None
    occurred_at: str | None = None


class PollAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The answer of the function.

    :ivar cursor: any JSON value, passed to the next call; left out: as before.
    :ivar more: call again immediately.
    """

    events: tuple[PolledEvent, ...] = ()
    cursor: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    more: bool = False


class Polled(Struct, frozen=True):
    """The events that were found, the next cursor as JSON, and whether to call again immediately."""

    events: tuple[NormalizedEvent, ...]
    cursor: bytes
    more: bool


def read_polled(result: bytes, trigger_id: str, cursor: bytes) -> Polled:
    """
    Return the result of a call.

    :param result: what the function returned, as JSON: an `PollAnswer`, or ``null`` for no news.
    :param cursor: the one that it was given, as JSON.
    :raises PayloadInvalid: it is something else; says what.
    """
    if result == b"null":
        return Polled((), cursor, False)
    try:
        answer = msgspec.json.decode(result, type=PollAnswer)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise PayloadInvalid(
            f'it must return {{"events": [{{"payload": ...}}], "cursor": ...}}, or None: {error}'
        ) from None
    if len(answer.events) > MOST_EVENTS:
        raise PayloadInvalid(
            f"it must return at most {MOST_EVENTS} events, got {len(answer.events)}: return the first ones, the cursor"
            ' after them, and "more": True'
        )
    events = tuple(_event(each, index, trigger_id, cursor) for index, each in enumerate(answer.events))
    following = cursor if isinstance(answer.cursor, msgspec.UnsetType) else bytes(answer.cursor)
    return Polled(events, following, answer.more)


def _event(given: PolledEvent, index: int, trigger_id: str, cursor: bytes) -> NormalizedEvent:
    payload = bytes(given.payload)
    # Without a key of its own: the same again when this very call is repeated, as after a crash, and no other time.
    key = given.dedupe_key or digest_value([cursor.decode("utf-8"), index, payload.decode("utf-8")])
    value = msgspec.json.decode(payload)
    if given.occurred_at is not None and bodies.occurred_at(given.occurred_at) is None:
        raise PayloadInvalid(
            f"it must return in events[{index}].occurred_at a time of RFC 3339 with its offset, for example"
            f" 2026-01-02T03:04:05Z, got {given.occurred_at[:40]!r}"
        )
    return NormalizedEvent(
        kind=given.kind,
        dedupe_key=f"{POLL}:{trigger_id}:{key}",
        payload={},
        lifted={name: [name] for name in value} if isinstance(value, dict) else {},
        occurred_at=given.occurred_at,
        signature_status=UNSIGNED,
        body=payload,
    )


class PollConnector(Idle):
    """Stands for the polls of one trigger."""

    def example(self) -> NormalizedEvent:
        """Return an event with an empty payload."""
        event = PolledEvent(payload=msgspec.Raw(canonical_json({})))
        return _event(event, 0, self._context.binding.trigger_id, b"null")


@implementer(IPlugin, IConnectorPlugin)
class PollPlugin:
    """The provider ``poll``."""

    provider = POLL
    kinds = (POLL,)
    table = None
    keys = PollSettings.__struct_fields__
    schema = StructSchema(PollSettings)
    required_secrets = ()
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context: ConnectorContext) -> PollConnector:
        """Make the connector of one trigger."""
        return PollConnector(context)
