"""Operations on alerts: the state of each, and a message to try one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from harn.alerts.model import FIRING, QUIET, TEST, AlertRecord, AlertState, Notice
from harn.clocks import WallTime, rfc3339
from harn.errors import AlertNotSent, RouteUnknown
from harn.manifest.alerts import COUNTED
from harn.model.display import list_some
from harn.model.quantities import format_duration
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.alerts.board import Board, BoardEntry
    from harn.alerts.runner import AlertRunner

MOST_NAMED = 20
"""Alerts that a message about an unknown one names."""


class AlertOperations(Struct, frozen=True, kw_only=True):
    """The service behind the operations on alerts."""

    board: Board
    runner: AlertRunner
    wall: WallTime


class ListAlerts(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class AlertInfo(Result, frozen=True, kw_only=True):
    """One alert."""

    index: Annotated[int, Meta(description="Its place in this list, from 1.")]
    name: Annotated[str, Meta(description="For example gh/dead_letter/slack; dead_letter/slack for all triggers.")]
    trigger_id: Annotated[str | None, Meta(description="null for all triggers.")]
    on: str
    to: str
    target: Annotated[str, Meta(description="The address, or the reference of the secret that holds the URL.")]
    threshold: Annotated[int | None, Meta(description="null where it does not count.")]
    within: str
    every: str
    state: Annotated[str, Meta(description="quiet or firing.")]
    firing_since: str | None
    count: Annotated[int, Meta(description="How often it happened since the last message.")]
    last_sent: Annotated[str | None, Meta(description="When its last message was made that it began or is still on.")]
    pending: Annotated[int, Meta(description="Messages that are not sent so far.")]
    next_try: str | None
    attempts: Annotated[int, Meta(description="How often sending the first of them failed.")]
    last_error: Annotated[str | None, Meta(description="Why sending failed the last time; null once it worked.")]


class AlertList(Result, frozen=True, kw_only=True):
    """Every alert, those of all triggers first."""

    alerts: tuple[AlertInfo, ...]


class TryAlert(Parameters, frozen=True, kw_only=True):
    """Which alert to try."""

    alert: Annotated[str, Meta(min_length=1, description="Its name, or its place in the list.")]


class AlertTested(Result, frozen=True, kw_only=True):
    """Whether the message was accepted."""

    name: str
    to: str
    target: str
    sent: bool
    error: Annotated[str | None, Meta(description="Why it was not.")] = None


@operation("alerts.list", role=Role.READ, route=Get("/alerts"))
async def list_alerts(service: AlertOperations, caller: Caller, wanted: ListAlerts) -> AlertList:
    """List the alerts of the live generation, with their state."""
    return AlertList(alerts=tuple(_describe(index, entry) for index, entry in enumerate(ordered(service.board), 1)))


@operation(
    "alerts.test",
    role=Role.OPERATE,
    route=Post("/alerts/test"),
    example={"alert": "gh/dead_letter/webhook"},
    audit=lambda done: {"sent": int(done.sent)},
)
async def try_alert(service: AlertOperations, caller: Caller, wanted: TryAlert) -> AlertTested:
    """
    Send one message, to see that it arrives; the state of the alert stays as it is.

    :raises RouteUnknown: there is no such alert.
    """
    from harn.alerts.board import new_id
    from harn.alerts.messages import write_message

    entry, now = find(service.board, wanted.alert), service.wall.seconds()
    notice = Notice(id=new_id(now), status=TEST, made_at=now, began_at=now, since=now)
    message = write_message(entry.rule, notice, service.runner.origin)
    error: str | None = None
    try:
        await service.runner.try_out(entry, message)
    except AlertNotSent as failed:
        error = str(failed)
    target = entry.target
    return AlertTested(name=entry.rule.name, to=target.to, target=target.shown, sent=error is None, error=error)


def ordered(board: Board) -> list[BoardEntry]:
    """Return the alerts in the order of the list: those of all triggers, then by trigger."""
    return sorted(board, key=lambda entry: (entry.rule.trigger_id or "", entry.rule.key))


def find(board: Board, wanted: str) -> BoardEntry:
    """
    Return an alert by its name, or by its place in the list.

    :raises RouteUnknown: there is no such alert; says which there are.
    """
    entries = ordered(board)
    for entry in entries:
        if entry.rule.name == wanted:
            return entry
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(entries):
        return entries[int(wanted) - 1]
    names = list_some([entry.rule.name for entry in entries], MOST_NAMED)
    raise RouteUnknown(f"there is no alert {wanted!r}; the live generation has: {names}")


def _describe(index: int, entry: BoardEntry) -> AlertInfo:
    from harn.alerts.keeping import record_of

    return describe_record(index, record_of(entry, 0.0))


def describe_record(index: int, record: AlertRecord) -> AlertInfo:
    """Return the description of an alert, from its stored record."""
    state: AlertState = record.state
    first = state.pending[0] if state.pending else None
    return AlertInfo(
        index=index,
        name=record.name,
        trigger_id=record.trigger_id,
        on=record.on,
        to=record.to,
        target=record.target,
        threshold=record.threshold if record.on in COUNTED else None,
        within=format_duration(record.within),
        every=format_duration(record.every),
        state=FIRING if state.is_firing else QUIET,
        firing_since=None if state.firing_since is None else rfc3339(state.firing_since),
        count=state.count,
        last_sent=None if state.sent_at is None else rfc3339(state.sent_at),
        pending=len(state.pending),
        next_try=None if first is None else rfc3339(first.due_at),
        attempts=0 if first is None else first.attempts,
        last_error=state.last_error or None,
    )


OPERATIONS = (list_alerts, try_alert)
"""Those of an `AlertOperations`."""
