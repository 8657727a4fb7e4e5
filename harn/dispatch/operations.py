"""Operations on dispatching: to send a synthetic event to a trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harn.model.delivery import DEAD
from harn.operations.model import Caller, Post, Result, Role, operation
from harn.operations.parameters import SECRET, Parameters, shown_as

if TYPE_CHECKING:
    from harn.dispatch.settler import Outcome
    from harn.dispatch.synthetic import SyntheticEvents


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


@operation("fire", role=Role.OPERATE, route=Post("/fire/{trigger}"), audit=lambda done: {"fired": 1})
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
