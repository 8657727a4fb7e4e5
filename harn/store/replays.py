"""
Replays and the slices of jobs, as every dialect does them: which recorded events are accepted again, as what
deliveries, and how each slice is one unit with the progress of its job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from harn.model import delivery as model
from harn.model.delivery import DEAD, DONE, LARGE_BODY, READY, State, StoredDelivery
from harn.model.event_trace import replayed_envelope
from harn.store.executor import Idea, writes
from harn.store.jobs import GONE, ItemOutcome, Job, ReplayOrder, Replays
from harn.store.rows import NAMES

REPLAYABLE = frozenset((DONE, model.SKIPPED, DEAD))
"""States out of which a recorded event is accepted again."""


@frozen
class Recorded:
    """The row of a delivery that is to be replayed, in order; ``body`` is empty where it is large."""

    event_id: str
    trigger_id: str
    provider: str
    kind: str
    state: State
    replayed_as: str | None
    envelope: bytes
    size: int
    body: bytes


def recorded_of(row: Sequence[Any]) -> Recorded:
    """Read the row of a delivery that is to be replayed."""
    event_id, trigger_id, provider, kind, state, replayed_as, envelope, size, body = row
    return Recorded(event_id, trigger_id, provider, kind, NAMES[state], replayed_as, envelope, size, body)


def stands(state: State, replayed_as: str | None = None) -> str:
    """Return why nothing is done with a delivery in this state."""
    return f"it is {state}" + (f" as {replayed_as}" if replayed_as and state is State.REPLAYED else "")


def replayed_delivery(delivery_id: int, order: ReplayOrder, recorded: Recorded, now: float) -> StoredDelivery:
    """Return the new delivery, ready; ``now`` is seconds, Unix."""
    envelope = replayed_envelope(recorded.envelope, order.event_id)
    return StoredDelivery(
        delivery_id=delivery_id,
        event_id=order.event_id,
        trigger_id=recorded.trigger_id,
        version=order.version,
        provider=recorded.provider,
        kind=recorded.kind,
        state=READY,
        attempts=0,
        passed=False,
        crashes=0,
        due_at=None,
        received_at=now,
        replay_of=recorded.event_id,
        envelope=envelope,
        body=recorded.body,
        left_out=0 if recorded.size <= LARGE_BODY else recorded.size,
    )


class Replaying:
    """Replays of a dialect, which brings the statements."""

    def read(self, session: Any, delivery_id: int) -> Sequence[Any] | None:
        """Return the row of a delivery for `recorded_of`, None where it is not kept."""
        raise NotImplementedError

    def accept_again(self, session: Any, order: ReplayOrder, recorded: Recorded, now: float) -> StoredDelivery:
        """Write the new delivery, and name it in the old one."""
        raise NotImplementedError

    def replay(self, session: Any, orders: Sequence[ReplayOrder], now: float, max_bytes: int) -> Replays:
        """See `harn.store.jobs.IJobs.replay`."""
        outcomes: list[ItemOutcome] = []
        deliveries: list[StoredDelivery] = []
        dead: set[int] = set()
        size = 0
        for order in orders:
            row = self.read(session, order.delivery_id)
            if row is None:
                outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id="", reason=GONE))
                continue
            recorded = recorded_of(row)
            if recorded.state not in REPLAYABLE:
                why = stands(recorded.state, recorded.replayed_as)
                outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, reason=why))
                continue
            size += recorded.size
            if deliveries and size > max_bytes:
                break
            deliveries.append(self.accept_again(session, order, recorded, now))
            if recorded.state is DEAD:
                dead.add(order.delivery_id)
            outcomes.append(
                ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, replayed_as=order.event_id)
            )
        return Replays(outcomes=tuple(outcomes), deliveries=tuple(deliveries), dead=frozenset(dead))


class JobsHalf(Idea):
    """
    The part of `harn.store.jobs.IJobs` in which slices change deliveries, each with the job's progress.

    A dialect's class brings the statements: the methods whose names begin with ``_``.
    """

    if TYPE_CHECKING:

        def _replay(self, session: Any, orders: Sequence[ReplayOrder], now: float, max_bytes: int) -> Replays: ...

        def _discard(self, session: Any, delivery_ids: Sequence[int], now: float) -> list[ItemOutcome]: ...

        def _cancel(
            self, session: Any, delivery_ids: Sequence[int], now: float, *, of_all: bool
        ) -> Mapping[int, State]: ...

        def _found(self, session: Any, job_id: int) -> Job: ...

        def _add_items(self, session: Any, job_id: int, delivery_ids: Iterable[int]) -> int: ...

        def _note_selection(self, session: Any, job_id: int, cursor: int, is_last: bool, added: int) -> None: ...

        def _still_pending(self, session: Any, job_id: int, delivery_ids: Sequence[int]) -> set[int]: ...

        def _write_outcomes(self, session: Any, job_id: int, outcomes: Sequence[ItemOutcome]) -> None: ...

        def _count_outcomes(self, session: Any, job_id: int, changed: int, skipped: int) -> None: ...

    @writes
    def replay(
        self, session: Any, orders: Sequence[ReplayOrder], now: float, max_bytes: int, job_id: int | None = None
    ) -> Replays:
        """See `IJobs.replay`."""
        if job_id is not None:
            pending = self._still_pending(session, job_id, [order.delivery_id for order in orders])
            orders = [order for order in orders if order.delivery_id in pending]
        done = self._replay(session, orders, now, max_bytes)
        if job_id is not None:
            self._note(session, job_id, done.outcomes)
        return done

    @writes
    def discard(
        self, session: Any, delivery_ids: Sequence[int], now: float, job_id: int | None = None
    ) -> Sequence[ItemOutcome]:
        """See `IJobs.discard`."""
        if job_id is not None:
            pending = self._still_pending(session, job_id, delivery_ids)
            delivery_ids = [each for each in delivery_ids if each in pending]
        outcomes = self._discard(session, delivery_ids, now)
        if job_id is not None:
            self._note(session, job_id, outcomes)
        return outcomes

    @writes
    def cancel(
        self, session: Any, delivery_ids: Sequence[int], now: float, *, of_all: bool = False
    ) -> Mapping[int, State]:
        """See `IJobs.cancel`."""
        return self._cancel(session, delivery_ids, now, of_all=of_all)

    @writes
    def note(self, session: Any, job_id: int, outcomes: Sequence[ItemOutcome]) -> None:
        """See `IJobs.note`."""
        pending = self._still_pending(session, job_id, [each.delivery_id for each in outcomes])
        self._note(session, job_id, [each for each in outcomes if each.delivery_id in pending])

    def _add(self, session: Any, job_id: int, delivery_ids: Iterable[int], cursor: int, *, is_last: bool) -> Job:
        """See `IJobs.select`; what another server has added meanwhile is left as it is."""
        before = self._found(session, job_id)
        if before.is_selected or before.state.has_ended or cursor > before.cursor:
            return before
        added = self._add_items(session, job_id, [each for each in delivery_ids if each < before.cursor])
        self._note_selection(session, job_id, cursor, is_last, added)
        return self._found(session, job_id)

    def _note(self, session: Any, job_id: int, outcomes: Sequence[ItemOutcome]) -> None:
        """Write the outcomes of pending items, and count them."""
        if outcomes:
            self._write_outcomes(session, job_id, outcomes)
            changed = sum(each.reason is None for each in outcomes)
            self._count_outcomes(session, job_id, changed, len(outcomes) - changed)
