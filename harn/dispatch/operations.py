"""Operations on dispatching: to send a synthetic event; to pause triggers, or the whole server, and resume them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harn.clocks import rfc3339
from harn.model.delivery import DEAD
from harn.model.quantities import parse_duration
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import SECRET, Parameters, shown_as
from harn.store.holds import ALL

if TYPE_CHECKING:
    from harn.dispatch.pauses import Pauses
    from harn.dispatch.settler import Outcome
    from harn.dispatch.synthetic import SyntheticEvents
    from harn.store.holds import Pause


LONGEST_KIND = 200
"""Characters of the longest kind of a synthetic event."""


class Fire(Parameters, frozen=True, kw_only=True):
    """Which trigger gets which event."""

    trigger: Annotated[str, Meta(description="The trigger's id.")]
    payload: Annotated[Any, Meta(description="The event's body, any JSON value; else an example."), SECRET] = None
    kind: (
        Annotated[
            str,
            Meta(
                min_length=1, max_length=LONGEST_KIND, description="The event's kind; else one that the trigger takes."
            ),
            shown_as("K"),
        ]
        | None
    ) = None


class Fired(Result, frozen=True, kw_only=True):
    """The outcome of the event; the members after ``status`` are present once its delivery has ended."""

    binding_id: str
    binding_version: int
    event_id: str | None
    status: Annotated[str, Meta(description="dispatched, waiting, dlq, pending, ignored or duplicate_dropped.")]
    replay_of_event_id: str | UnsetType | None = UNSET
    dlq_entry_id: str | UnsetType | None = UNSET
    result: Annotated[Any, Meta(description="What the handler returned.")] = UNSET
    error: str | UnsetType | None = UNSET


@operation(
    "fire",
    role=Role.OPERATE,
    route=Post("/fire/{trigger}"),
    example={"trigger": "gh", "kind": "issues.opened", "payload": {"action": "opened"}},
    audit=lambda done: {"fired": 1},
)
async def fire(events: SyntheticEvents, caller: Caller, wanted: Fire) -> Fired:
    """
    Send a synthetic event to a trigger, and return the outcome.

    :raises RouteUnknown: there is no such trigger.
    """
    sent = await events.send(wanted.trigger, wanted.payload, wanted.kind)
    if sent.outcome is not None:
        return describe_outcome(sent.outcome)
    taken = sent.taken
    if taken.event_ids:
        status = "dlq" if taken.dead else "pending"
    else:
        status = "duplicate_dropped" if taken.duplicates else "ignored"
    return Fired(
        binding_id=wanted.trigger,
        binding_version=sent.binding.version,
        event_id=taken.event_ids[0] if taken.event_ids else None,
        status=status,
    )


def describe_outcome(outcome: Outcome) -> Fired:
    """Return how the delivery of a synthetic event ended."""
    settlement = outcome.settlement
    error = settlement.dead.error if settlement.dead is not None else None
    if error is None and settlement.attempt is not None:
        error = settlement.attempt.error
    return Fired(
        binding_id=outcome.delivery.binding.id,
        binding_version=settlement.version,
        event_id=outcome.delivery.event_id,
        status="dispatched" if settlement.succeeded else "dlq" if settlement.state == DEAD else "waiting",
        replay_of_event_id=outcome.delivery.replay_of,
        dlq_entry_id=outcome.delivery.event_id if settlement.state == DEAD else None,
        result=None if settlement.result is None else msgspec.json.decode(settlement.result),
        error=error,
    )


OPERATIONS = (fire,)
"""Those of `SyntheticEvents`."""


FOR = Meta(description="How long, for example 1h; until it is resumed when left out.")
RATE = Meta(description="What was held begins at this rate, for example 10/s; all at once when left out.")
LOWEST_RATE = 1.0 / 86400.0
"""One a day: less is a mistake."""
_PER = {"s": 1.0, "m": 60.0, "h": 3600.0}


class PauseServer(Parameters, frozen=True, kw_only=True, rename={"duration": "for"}):
    """The time for which nothing begins."""

    duration: Annotated[str | None, FOR, shown_as("DUR")] = None

    def __post_init__(self) -> None:
        """
        Check the duration.

        :raises ValueError: it is not a duration.
        """
        if self.duration is None:
            return
        try:
            seconds = parse_duration(self.duration)
        except ValueError as wrong:
            raise ValueError(f"for: {wrong}") from wrong
        if not seconds:
            raise ValueError(f"for: must be greater than 0, got {self.duration!r}")


class PauseTrigger(PauseServer, frozen=True, kw_only=True, rename={"duration": "for"}):
    """Which trigger to pause, and how long."""

    trigger: Annotated[str, Meta(description="The trigger's id.")]


class ResumeServer(Parameters, frozen=True, kw_only=True):
    """The rate at which held deliveries begin."""

    rate: Annotated[str | None, RATE, shown_as("N/s")] = None

    def __post_init__(self) -> None:
        """
        Check the rate.

        :raises ValueError: it is not a rate.
        """
        if self.rate is not None:
            try:
                parse_rate(self.rate)
            except ValueError as wrong:
                raise ValueError(f"rate: {wrong}") from wrong


class ResumeTrigger(ResumeServer, frozen=True, kw_only=True):
    """Which trigger to resume, and how fast."""

    trigger: Annotated[str, Meta(description="The trigger's id.")]


class ListPauses(Parameters, frozen=True, kw_only=True):
    """The number to list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N pauses.")] = 100


class PauseInfo(Result, frozen=True, kw_only=True):
    """One pause; ``trigger_id`` is null for the whole server, ``until`` where only a resume ends it."""

    trigger_id: str | None
    since: str
    until: str | None
    actor: Annotated[str, Meta(description="The credential of the operator.")]


class PauseList(Result, frozen=True, kw_only=True):
    """The pauses that hold now: the server's, then those that end first; ``total`` counts all."""

    pauses: tuple[PauseInfo, ...]
    total: int


class Paused(Result, frozen=True, kw_only=True):
    """A pause; ``trigger_id`` is null for the whole server, ``until`` where only a resume ends it."""

    trigger_id: str | None
    paused: bool
    until: str | None


class Resumed(Result, frozen=True, kw_only=True):
    """The end of a pause; ``was_paused`` is false where there was none."""

    trigger_id: str | None
    paused: bool
    was_paused: bool


def parse_rate(text: str) -> float:
    """
    Return how many a second ``text`` names, for example ``10/s`` or ``90/m``.

    :raises ValueError: it is not a number with a unit (s, m, h), or less than `LOWEST_RATE`.
    """
    count, _, unit = text.partition("/")
    try:
        found = float(count) / _PER[unit.strip() or "s"]
    except (ValueError, KeyError):
        found = 0.0
    if not LOWEST_RATE <= found < 1e6:
        raise ValueError(f'must be a rate, got {text!r}; write a number and /s, /m or /h, for example "10/s"')
    return found


@operation("pauses.list", role=Role.READ, route=Get("/pauses"), example={"limit": 20})
async def list_pauses(pauses: Pauses, caller: Caller, wanted: ListPauses) -> PauseList:
    """List the pauses: since when, by whom, and until when."""
    return describe_pauses(pauses.all(), wanted.limit)


def describe_pauses(found: Mapping[str, Pause], limit: int) -> PauseList:
    """Return pauses by trigger id, or `ALL`, in their order; at most ``limit`` of them."""
    shown = tuple(
        PauseInfo(
            trigger_id=None if name == ALL else name,
            since=rfc3339(pause.since),
            until=shown_until(pause),
            actor=pause.actor,
        )
        for name, pause in islice(found.items(), limit)
    )
    return PauseList(pauses=shown, total=len(found))


@operation(
    "triggers.pause",
    role=Role.OPERATE,
    route=Post("/triggers/{trigger}/pause"),
    example={"trigger": "gh", "for": "1h"},
    audit=lambda _: {"paused": 1},
)
async def pause_trigger(pauses: Pauses, caller: Caller, wanted: PauseTrigger) -> Paused:
    """
    Pause a trigger: its events are accepted and kept, and none begins. What runs continues.

    :raises RouteUnknown: there is no such trigger.
    """
    return await _pause(pauses, caller, wanted.trigger, wanted.duration)


@operation("pause", role=Role.OPERATE, route=Post("/pause"), example={"for": "10m"}, audit=lambda _: {"paused": 1})
async def pause_server(pauses: Pauses, caller: Caller, wanted: PauseServer) -> Paused:
    """Pause every trigger of the server: events are accepted and kept, and none begins. What runs continues."""
    return await _pause(pauses, caller, None, wanted.duration)


@operation(
    "triggers.resume",
    role=Role.OPERATE,
    route=Post("/triggers/{trigger}/resume"),
    example={"trigger": "gh", "rate": "10/s"},
    audit=lambda done: {"resumed": int(done.was_paused)},
)
async def resume_trigger(pauses: Pauses, caller: Caller, wanted: ResumeTrigger) -> Resumed:
    """
    Resume a trigger that was paused; where the whole server is paused, it stays so.

    :raises RouteUnknown: there is no such trigger.
    """
    return await _resume(pauses, wanted.trigger, wanted.rate)


@operation(
    "resume",
    role=Role.OPERATE,
    route=Post("/resume"),
    example={"rate": "10/s"},
    audit=lambda done: {"resumed": int(done.was_paused)},
)
async def resume_server(pauses: Pauses, caller: Caller, wanted: ResumeServer) -> Resumed:
    """Resume the server after it was paused; triggers that are paused themselves stay so."""
    return await _resume(pauses, None, wanted.rate)


async def _pause(pauses: Pauses, caller: Caller, trigger_id: str | None, duration: str | None) -> Paused:
    seconds = None if duration is None else parse_duration(duration)
    pause = await pauses.pause(trigger_id, seconds, caller.actor)
    return Paused(trigger_id=trigger_id, paused=True, until=shown_until(pause))


async def _resume(pauses: Pauses, trigger_id: str | None, rate: str | None) -> Resumed:
    was_paused = await pauses.resume(trigger_id, None if rate is None else parse_rate(rate))
    still = pauses.of_server if trigger_id is None else pauses.of(trigger_id)
    return Resumed(trigger_id=trigger_id, paused=still is not None, was_paused=was_paused)


def shown_until(pause: Pause) -> str | None:
    """Return when a pause ends by itself, as people read it."""
    return None if pause.until is None else rfc3339(pause.until)


PAUSE_OPERATIONS = (list_pauses, pause_trigger, pause_server, resume_trigger, resume_server)
"""Those of `Pauses`."""
