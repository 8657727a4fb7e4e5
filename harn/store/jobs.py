"""
Jobs: what an operator has a server do with many deliveries, slice by slice, over restarts.

A job first selects deliveries, which become its items, and then changes one item after the other. Each slice is one
durable unit with the job's progress, so that a crash at any point repeats nothing and leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from zope.interface import Interface

from harn.model.delivery import State, StoredDelivery

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted

REPLAY, CANCEL, DISCARD = "replay", "cancel", "discard"
GONE = "it is not kept any more"
"""The reason why nothing is done with a delivery that retention has removed."""


class JobState(StrEnum):
    """The state of a job."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows."""
        return self in (JobState.DONE, JobState.CANCELLED)


class JobFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Which deliveries a job is about, as it was asked for: those that are named, or all that are selected.

    ``state`` may be several with commas between them; ``since`` is a duration before the job began, such as ``1h``.
    """

    event_ids: tuple[str, ...] = ()
    state: str | None = None
    trigger: str | None = None
    kind: str | None = None
    since: str | None = None
    where: str | None = None


class NewJob(Struct, frozen=True, kw_only=True):
    """
    A job to begin.

    :ivar operation: `REPLAY`, `CANCEL` or `DISCARD`.
    :ivar actor: the credential of who asked for it.
    :ivar rate: most deliveries a second; None for no limit.
    :ivar created_at: seconds, Unix.
    """

    operation: str
    actor: str
    filter: JobFilter
    rate: float | None
    created_at: float


class Job(Struct, frozen=True, kw_only=True):
    """
    A job as it stands.

    :ivar cursor: deliveries from this id on have been looked at, or came after the job, and are not its own.
    :ivar is_selected: every delivery has been looked at.
    :ivar matched: the number of items of the job.
    :ivar changed: the number of items that are done.
    :ivar skipped: the number of items that could not be done.
    :ivar ended_at: seconds, Unix; None while it has not.
    """

    job_id: int
    operation: str
    actor: str
    filter: JobFilter
    rate: float | None
    state: JobState
    created_at: float
    ended_at: float | None
    cursor: int
    is_selected: bool
    matched: int
    changed: int
    skipped: int

    @property
    def pending(self) -> int:
        """Return how many items are neither done nor skipped."""
        return self.matched - self.changed - self.skipped


class PendingItem(Struct, frozen=True, kw_only=True):
    """A delivery that a job has selected and not come to; the texts are empty when it is not kept any more."""

    delivery_id: int
    event_id: str
    trigger_id: str
    provider: str


class ReplayOrder(Struct, frozen=True, kw_only=True):
    """
    A delivery to replay.

    :ivar event_id: of the new delivery.
    :ivar version: the version of the trigger that it is for.
    """

    delivery_id: int
    event_id: str
    version: int


class ItemOutcome(Struct, frozen=True, kw_only=True):
    """
    The outcome of one item, or of one delivery without a job.

    :ivar replayed_as: the event that its replay made.
    :ivar reason: why nothing was done; None where it was.
    """

    delivery_id: int
    event_id: str
    replayed_as: str | None = None
    reason: str | None = None


class Replays(Struct, frozen=True, kw_only=True):
    """
    The result of a slice of replays, in the order of what was asked for.

    :ivar outcomes: of as many deliveries as fitted into the slice: at least one.
    :ivar deliveries: the new ones, without large bodies.
    :ivar dead: ids of the replayed deliveries that were dead letters.
    """

    outcomes: tuple[ItemOutcome, ...]
    deliveries: tuple[StoredDelivery, ...]
    dead: frozenset[int]


class IJobs(Interface):
    """
    Jobs and their items, and the units in which they change deliveries.

    Every unit of a job that is not running any more does nothing: two servers that take over from each other may both
    have come to the same slice.
    """

    def create(new: NewJob, delivery_ids: Sequence[int] | None = None) -> Deferred[Job]:
        """Keep a new job, running. With ``delivery_ids`` these are its items; else it is to select them."""

    def get(job_id: int) -> Deferred[Job | None]:
        """Return one job."""

    def list(limit: int) -> Deferred[Sequence[Job]]:
        """Return the newest jobs, the newest first."""

    def unfinished() -> Deferred[Sequence[Job]]:
        """Return the jobs that have not ended, the oldest first."""

    def select(job_id: int, delivery_ids: Sequence[int], cursor: int, *, is_last: bool) -> Deferred[Job]:
        """
        Add the items that were found down to ``cursor``, with that; ``is_last``: there are no more.

        :raises StoreError: there is no such job.
        """

    def pending(job_id: int, limit: int) -> Deferred[Sequence[PendingItem]]:
        """Return the first items that are neither done nor skipped, the oldest delivery first."""

    def replay(
        orders: Sequence[ReplayOrder], now: float, max_bytes: int, job_id: int | None = None
    ) -> Deferred[Replays]:
        """
        Accept recorded events again, each as a new delivery of this server that names the old one, in one unit with the
        marks of the old ones. A dead letter's claim goes to its replay.

        :param max_bytes: of bodies after which the slice ends; the rest of ``orders`` is left as it is.
        :param job_id: whose items they are: those that are not pending any more are left out.
        """

    def discard(delivery_ids: Sequence[int], now: float, job_id: int | None = None) -> Deferred[Sequence[ItemOutcome]]:
        """Discard dead letters; ``job_id`` as in `replay`. Others are skipped with a reason."""

    def cancel(delivery_ids: Sequence[int], now: float, *, of_all: bool = False) -> Deferred[Mapping[int, State]]:
        """
        End deliveries that are ready or wait as skipped (``cancelled``), which this server does not run.

        :param of_all: those of every server, where none runs; else this one's.
        :return: for each that was, the state that it had.
        """

    def note(job_id: int, outcomes: Sequence[ItemOutcome]) -> Deferred[None]:
        """Record the outcomes of items; those that are not pending any more are left out."""

    def change(job_id: int, state: JobState, now: float) -> Deferred[Job | None]:
        """
        Pause, resume or end a job that has not ended; return it as it stands then, None where there is none.

        `JobState.DONE` ends it only when everything is selected and nothing pending.
        """

    def items(job_id: int, after: int, limit: int) -> Deferred[Sequence[ItemOutcome]]:
        """Return the items that a job has come to, by delivery id, above ``after``."""
