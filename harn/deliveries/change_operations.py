"""Operations that change deliveries: replay, discard and cancel, of one delivery, or of many as a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from harn.deliveries.operations import NonEmpty, Selecting, ShowDelivery
from harn.deliveries.selection import PAST
from harn.operations.model import Caller, Post, Result, Role, operation
from harn.operations.parameters import Rate, given, parameters_of
from harn.store.jobs import CANCEL, DISCARD, REPLAY, ItemOutcome, JobFilter

if TYPE_CHECKING:
    from harn.deliveries.bulk import Bulk, Changes
    from harn.deliveries.changing import Changer

MOST_NAMED = 1000
"""Deliveries that one request may name."""


class ChangeService(Struct, frozen=True, kw_only=True):
    """The service behind the operations that change deliveries."""

    changer: Changer
    bulk: Bulk


class ChangeOne(ShowDelivery, frozen=True, kw_only=True):
    """Which delivery."""

    dry_run: Annotated[bool, Meta(description="Only say whether it could be done.")] = False


class ChangeMany(Selecting, frozen=True, kw_only=True):
    """Which deliveries: those that are named, or all that are selected."""

    event_ids: Annotated[
        tuple[Annotated[str, NonEmpty], ...],
        Meta(max_length=MOST_NAMED, description="These deliveries, by event id, in place of a selection."),
    ] = ()
    rate_limit: (
        Annotated[
            Rate,
            Meta(description="At most so many a second, for example 10/s; then it continues as a job of the server."),
        ]
        | None
    ) = None
    dry_run: Annotated[bool, Meta(description="Only count what would be done, and list it.")] = False

    def __post_init__(self) -> None:
        """
        Check that something is chosen, and in one way.

        :raises ValueError: nothing is, or both ways are used, or a value is wrong or empty.
        """
        super().__post_init__()
        empty = next((each.key for each, value in given(_SELECTION, self) if value == ""), None)
        if empty is not None:
            # An unset variable in `discard --trigger "$ID" --state dead` must not choose those of all triggers.
            raise ValueError(f"{empty}: must not be empty; leave it out to choose without it")
        chosen = next((each.key for each, value in given(_SELECTION, self) if value), None)
        if self.event_ids and chosen:
            raise ValueError(f"event_ids cannot be used with {chosen}: name deliveries, or select them")
        if not self.event_ids and not chosen:
            raise ValueError("nothing is chosen: give event_ids, where, state, trigger, kind or since")

    def filter(self) -> JobFilter:
        """Return the selection, in its written form."""
        return JobFilter(
            event_ids=self.event_ids,
            state=self.state,
            trigger=self.trigger,
            kind=self.kind,
            since=None if self.since is None else self.since.text,
            where=self.where,
        )


_SELECTION = parameters_of(Selecting, "POST", ())


class ReplayedItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery, the event of its replay, and the reason when there is none."""

    event_id: str
    replayed_as: str | None
    reason: str | UnsetType = UNSET


class ChangedItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery, and the reason when nothing was done with it."""

    event_id: str
    reason: str | UnsetType = UNSET


class Done(Result, frozen=True, kw_only=True, omit_defaults=True):
    """The members that the answers of all these operations have."""

    operation: str
    dry_run: bool
    matched: int
    skipped: Annotated[int, Meta(description="How many of them nothing was done with; each has its reason.")]
    more: Annotated[int, Meta(description="How many further items are not listed.")] | UnsetType = UNSET
    job: Annotated[int, Meta(description="The number of the job, where there is one.")] | UnsetType = UNSET
    state: (
        Annotated[str, Meta(description="The job's: running if it continues, paused, done or cancelled.")] | UnsetType
    ) = UNSET


class Replayed(Done, frozen=True, kw_only=True, omit_defaults=True):
    """The number of deliveries that were replayed, and the events of their replays."""

    replayed: int
    items: tuple[ReplayedItem, ...]


class Discarded(Done, frozen=True, kw_only=True, omit_defaults=True):
    """The number of dead letters that were discarded."""

    discarded: int
    items: tuple[ChangedItem, ...]


class Cancelled(Done, frozen=True, kw_only=True, omit_defaults=True):
    """The number of deliveries that were cancelled."""

    cancelled: int
    items: tuple[ChangedItem, ...]


@operation(
    "replay",
    role=Role.OPERATE,
    route=Post("/replay"),
    example={"state": "dead", "trigger": "gh", "rate_limit": "10/s"},
    audit=lambda done: counts(done),
)
async def replay_many(service: ChangeService, caller: Caller, wanted: ChangeMany) -> Replayed:
    """
    Run recorded events again on the newest versions of their triggers, each as a new delivery that names the old one.

    :raises DeliveryUnknown: one that is named is not kept; nothing was done.
    """
    return replayed(await service.bulk.change(REPLAY, caller, wanted))


@operation(
    "discard",
    role=Role.OPERATE,
    route=Post("/discard"),
    example={"state": "dead", "trigger": "gh", "dry_run": True},
    audit=lambda done: counts(done),
)
async def discard_many(service: ChangeService, caller: Caller, wanted: ChangeMany) -> Discarded:
    """
    Discard dead letters: nothing more is done with them, and retention removes them.

    :raises DeliveryUnknown: one that is named is not kept; nothing was done.
    """
    return discarded(await service.bulk.change(DISCARD, caller, wanted))


@operation(
    "cancel",
    role=Role.OPERATE,
    route=Post("/cancel"),
    example={"trigger": "gh", "where": "event.kind == 'issues.opened'", "dry_run": True},
    audit=lambda done: counts(done),
)
async def cancel_many(service: ChangeService, caller: Caller, wanted: ChangeMany) -> Cancelled:
    """
    Cancel deliveries: what waits or is ready ends as skipped, what runs is cut off.

    :raises DeliveryUnknown: one that is named is not kept; nothing was done.
    """
    return cancelled(await service.bulk.change(CANCEL, caller, wanted))


@operation(
    "deliveries.replay",
    role=Role.OPERATE,
    route=Post("/deliveries/{event_id}/replay"),
    example={"event_id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057", "dry_run": True},
    audit=lambda done: counts(done),
    recorded_as=REPLAY,
)
async def replay_one(service: ChangeService, caller: Caller, wanted: ChangeOne) -> Replayed:
    """
    Run the recorded event of one delivery again on the newest version of its trigger.

    :raises DeliveryUnknown: no delivery of this event is kept.
    :raises WrongState: it has not ended, or was replayed or discarded.
    """
    return replayed(await service.bulk.change_one(REPLAY, wanted))


@operation(
    "deliveries.discard",
    role=Role.OPERATE,
    route=Post("/deliveries/{event_id}/discard"),
    example={"event_id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057", "dry_run": True},
    audit=lambda done: counts(done),
    recorded_as=DISCARD,
)
async def discard_one(service: ChangeService, caller: Caller, wanted: ChangeOne) -> Discarded:
    """
    Discard one dead letter.

    :raises DeliveryUnknown: no delivery of this event is kept.
    :raises WrongState: it is not a dead letter.
    """
    return discarded(await service.bulk.change_one(DISCARD, wanted))


@operation(
    "deliveries.cancel",
    role=Role.OPERATE,
    route=Post("/deliveries/{event_id}/cancel"),
    example={"event_id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057", "dry_run": True},
    audit=lambda done: counts(done),
    recorded_as=CANCEL,
)
async def cancel_one(service: ChangeService, caller: Caller, wanted: ChangeOne) -> Cancelled:
    """
    Cancel one delivery.

    :raises DeliveryUnknown: no delivery of this event is kept.
    :raises WrongState: it has ended.
    """
    return cancelled(await service.bulk.change_one(CANCEL, wanted))


OPERATIONS = (replay_many, cancel_many, discard_many, replay_one, cancel_one, discard_one)
"""Those of a `ChangeService`."""


def counts(done: Done) -> Mapping[str, int]:
    """Return the counts of an answer for its audit record; of a job that continues, those so far."""
    past = PAST[done.operation]
    job = {} if done.job is UNSET else {"job": done.job}
    return {"matched": done.matched, past: getattr(done, past), "skipped": done.skipped, **job}


def replayed(done: Changes) -> Replayed:
    """Return the answer of a replay."""
    return Replayed(**asdict(_common(done)), replayed=done.changed, items=tuple(map(replayed_item, done.items)))


def discarded(done: Changes) -> Discarded:
    """Return the answer of a discard."""
    return Discarded(**asdict(_common(done)), discarded=done.changed, items=tuple(map(changed_item, done.items)))


def cancelled(done: Changes) -> Cancelled:
    """Return the answer of a cancel."""
    return Cancelled(**asdict(_common(done)), cancelled=done.changed, items=tuple(map(changed_item, done.items)))


def replayed_item(outcome: ItemOutcome) -> ReplayedItem:
    """Return one item of a replay's answer."""
    return ReplayedItem(event_id=outcome.event_id, replayed_as=outcome.replayed_as, reason=outcome.reason or UNSET)


def changed_item(outcome: ItemOutcome) -> ChangedItem:
    """Return one item of another answer."""
    return ChangedItem(event_id=outcome.event_id, reason=outcome.reason or UNSET)


def answer(done: Changes) -> Done:
    """Return the answer of the operation that was run."""
    if done.operation == REPLAY:
        return replayed(done)
    return cancelled(done) if done.operation == CANCEL else discarded(done)


def _common(done: Changes) -> Done:
    """Return the members that the answers of all these operations have."""
    return Done(
        operation=done.operation,
        dry_run=done.dry_run,
        matched=done.matched,
        skipped=done.skipped,
        more=done.more or UNSET,
        job=UNSET if done.job is None else done.job.job_id,
        state=UNSET if done.job is None else done.job.state.value,
    )
