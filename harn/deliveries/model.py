"""Results of the operations on deliveries, as the admin API and the commands give them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from harn.operations.model import Result

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
    more: Annotated[bool, Meta(description="Whether the list goes on.")]
    before: Annotated[int, Meta(description="Where it goes on: the option of the next request.")] | UnsetType = UNSET
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
    """Dead letters in groups; the group that was added to last comes first."""

    groups: tuple[DeadGroupInfo, ...]
    total: int
