"""Operations on the cursors of polls: show one, set it, or have the function begin from the start again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from harn.clocks import rfc3339
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import IN_QUERY, Parameters
from harn.schedules.cursors import CursorRecord, encode_cursor

if TYPE_CHECKING:
    from harn.schedules.operations import TimedTriggers


class ShowCursor(Parameters, frozen=True, kw_only=True):
    """The trigger."""

    trigger: Annotated[str, Meta(min_length=1, description="A trigger of kind poll.")]


class SetCursor(Parameters, frozen=True, kw_only=True):
    """The trigger, and either its next cursor or a reset."""

    trigger: Annotated[str, Meta(min_length=1, description="A trigger of kind poll.")]
    cursor: Annotated[Any, Meta(description="What the next call gets, any JSON value but null.")] = None
    reset: Annotated[bool, Meta(description="Begin from the start: the next call gets None.")] = False
    dry_run: Annotated[bool, Meta(description="Only say what would change."), IN_QUERY] = False

    def __post_init__(self) -> None:
        if self.reset == (self.cursor is not None):
            raise ValueError("cursor or reset must be given, and not both")


class PollInfo(Result, frozen=True, kw_only=True):
    """A trigger that polls: its cursor, and how its last calls went."""

    trigger_id: str
    cursor: Annotated[Any, Meta(description="What its next call gets, any JSON value; null as the first call.")]
    last_polled_at: Annotated[str | None, Meta(description="When the last call ended that did not fail.")] = None
    failures: Annotated[int, Meta(description="Calls in a row that failed, up to now.")] = 0
    last_error: Annotated[str | None, Meta(description="Of the last of these, with its class.")] = None
    last_failed_at: Annotated[str | None, Meta(description="When that ended.")] = None


class CursorChange(Result, frozen=True, kw_only=True):
    """A cursor before and after."""

    trigger_id: str
    before: Annotated[Any, Meta(description="The cursor that it had.")]
    cursor: Annotated[Any, Meta(description="The cursor that its next call gets.")]
    changed: Annotated[bool, Meta(description="Whether these differ.")]
    dry_run: bool


@operation("cursors.show", role=Role.READ, route=Get("/cursors/{trigger}"), example={"trigger": "numbers"})
async def show_cursor(triggers: TimedTriggers, caller: Caller, wanted: ShowCursor) -> PollInfo:
    """
    Show the cursor of a poll, and how its last calls went.

    :raises RouteUnknown: there is no trigger of that id that polls.
    """
    return await triggers.poll(wanted.trigger)


@operation(
    "cursors.set",
    role=Role.OPERATE,
    route=Post("/cursors/{trigger}"),
    example={"trigger": "numbers", "cursor": {"since": "2026-01-01"}, "dry_run": True},
    audit=lambda done: {"set": int(done.changed and not done.dry_run)},
)
async def set_cursor(triggers: TimedTriggers, caller: Caller, wanted: SetCursor) -> CursorChange:
    """
    Set the cursor of a poll, with which its function is called next; a call that runs is interrupted.

    :raises RouteUnknown: there is no trigger of that id that polls.
    :raises PayloadInvalid: the cursor is too long.
    """
    cursor = encode_cursor(wanted.cursor)
    before = (await triggers.poll(wanted.trigger)).cursor
    if not wanted.dry_run:
        before = msgspec.json.decode((await triggers.polls.set_cursor(wanted.trigger, cursor)).cursor)
    return describe_change(wanted, before)


def describe_change(wanted: SetCursor, before: Any) -> CursorChange:
    """Return the effect of a change of a cursor."""
    return CursorChange(
        trigger_id=wanted.trigger,
        before=before,
        cursor=wanted.cursor,
        changed=before != wanted.cursor,
        dry_run=wanted.dry_run,
    )


def describe_poll(trigger_id: str, record: CursorRecord, polled_at: float | None = None) -> PollInfo:
    """Return a poll by its record; ``polled_at``: when its last call ended that did not fail, if that is known."""
    at, failure = polled_at or record.polled_at, record.failure
    return PollInfo(
        trigger_id=trigger_id,
        cursor=msgspec.json.decode(record.cursor),
        last_polled_at=None if at is None else rfc3339(at),
        failures=0 if failure is None else failure.count,
        last_error=None if failure is None else failure.error,
        last_failed_at=None if failure is None else rfc3339(failure.at),
    )
