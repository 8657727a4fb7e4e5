"""What a store in memory holds of deliveries, and what each unit does to it: plain calls on plain dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from attrs import define
from msgspec.structs import replace

from harn.errors import ClaimTaken, StoreError
from harn.model.delivery import (
    DEAD,
    DISCARDED,
    DONE,
    READY,
    REPLAYED,
    RETRY_EXHAUSTED,
    SKIPPED,
    WAITING,
    Acceptance,
    Attempt,
    Claim,
    DeadLetter,
    NewDelivery,
    Settlement,
    StoredDelivery,
)
from harn.store.deliveries import Backlog, DueDelivery, GivenUp, RecentEvent, Unfinished, disposition
from harn.store.event_log import (
    ATTEMPTS,
    DEAD_LETTERS,
    INBOX,
    OUTBOX,
    Record,
    RecordedAttempt,
    attempt_record,
    dead_record,
    envelope_record,
    outbox_record,
)
from harn.store.recovery import Recovery, recovery_limit
from harn.store.retention import RetentionPolicy
from tests.store.model.claims import Claims

OVER = (DONE, SKIPPED, DISCARDED, REPLAYED)
"""States in which nothing more is to be done."""


@define
class Row:
    """One delivery, and its outcome."""

    stored: StoredDelivery
    owner: int
    settled_at: float | None = None
    died_at: float | None = None
    dead_number: int | None = None
    dead: DeadLetter | None = None
    result: bytes | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether it is still to be run."""
        return self.stored.state in (READY, WAITING)

    @property
    def size(self) -> int:
        """Count the event's bytes."""
        return len(self.stored.envelope) + len(self.stored.body)

    def due_at(self) -> float:
        """Return when it is due; at once, where it has no time."""
        return self.stored.due_at or 0.0


class DeliveryTables:
    """Deliveries, attempts and claims; each method is one unit, or one look."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._claims = Claims()
        self._attempts: dict[int, tuple[int, Attempt]] = {}
        self._highest = {"delivery": 0, "attempt": 0, "dead": 0}

    def accept(self, acceptance: Acceptance, owner: int, now: float) -> tuple[int | None, ...]:
        """See `IInbox.accept`."""
        if acceptance.guard is not None and not self.claim(acceptance.guard, now):
            raise ClaimTaken("it was accepted before")
        return tuple(self._accept(new, owner, now) for new in acceptance.deliveries)

    def claim(self, claim: Claim, now: float) -> bool:
        """See `IInbox.claim`."""
        return self._claims.take(claim, now)

    def settle(self, settlement: Settlement, at: float) -> None:
        """See `IDeliveries.settle`."""
        row = self._rows.get(settlement.delivery_id)
        if row is None:
            raise StoreError(f"there is no delivery {settlement.delivery_id}")
        row.stored = replace(
            row.stored,
            state=settlement.state,
            version=settlement.version,
            attempts=settlement.attempts,
            passed=settlement.passed,
            due_at=settlement.due_at,
        )
        attempt = settlement.attempt
        row.settled_at = row.dead_number = None
        row.dead, row.result = settlement.dead, settlement.result
        if not row.is_unfinished:
            row.settled_at = at if attempt is None else attempt.completed_at
        if settlement.state == DEAD:
            row.dead_number = self._next("dead")
            self._claims.release(row.stored.delivery_id)
        if attempt is not None:
            self._attempts[self._next("attempt")] = (settlement.delivery_id, attempt)

    def ready(
        self, owner: int, trigger_id: str, version: int, excluding: Collection[int], limit: int, max_bytes: int
    ) -> Sequence[StoredDelivery]:
        """See `IDeliveries.ready`."""
        found: list[StoredDelivery] = []
        size = 0
        for row in self._of_version(trigger_id, version, READY, excluding=excluding):
            if row.owner != owner:
                continue
            light = row.stored.light()
            size += len(light.body)
            if len(found) == limit or (found and size > max_bytes):
                break
            found.append(light)
        return found

    def due(self, owner: int, now: float, limit: int) -> Sequence[DueDelivery]:
        """See `IDeliveries.due`."""
        rows = [row for row in self._in_state(WAITING) if row.owner == owner and row.due_at() <= now]
        due = sorted(rows, key=Row.due_at)[:limit]
        for row in due:
            row.stored = replace(row.stored, state=READY)
        return [DueDelivery(row.stored.delivery_id, row.stored.trigger_id, row.stored.version) for row in due]

    def advance_due(self, owner: int, seconds: float) -> None:
        """See `IDeliveries.advance_due`."""
        for row in self._in_state(WAITING):
            if row.owner == owner:
                row.stored = replace(row.stored, due_at=row.due_at() - seconds)

    def next_due(self, owner: int, after: float) -> float | None:
        """See `IDeliveries.next_due`."""
        times = (row.due_at() for row in self._in_state(WAITING) if row.owner == owner)
        return min((at for at in times if at > after), default=None)

    def find(self, event_id: str) -> Sequence[StoredDelivery]:
        """See `IDeliveries.find`."""
        return [row.stored for row in self._rows.values() if row.stored.event_id == event_id]

    def backlog(self) -> Sequence[Backlog]:
        """See `IDeliveries.backlog`."""
        return count(self._in_state())

    def oldest(self, versions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], StoredDelivery]:
        """See `IDeliveries.oldest`."""
        unfinished = {version: self._of_version(*version, READY, WAITING) for version in versions}
        return {
            version: replace(rows[0].stored, envelope=b"", body=b"") for version, rows in unfinished.items() if rows
        }

    def recent(self, trigger_ids: Collection[str], limit: int, depth: int) -> Sequence[RecentEvent]:
        """See `IDeliveries.recent`."""
        found: list[RecentEvent] = []
        counts: Counter[str] = Counter()
        for delivery_id in sorted(self._rows, reverse=True)[:depth]:
            trigger_id = self._rows[delivery_id].stored.trigger_id
            if trigger_id in trigger_ids and counts[trigger_id] < limit:
                counts[trigger_id] += 1
                found.append(self._recent(self._rows[delivery_id]))
        return found

    def unfinished(self, but_of: Collection[int], older_than: float, limit: int) -> Sequence[StoredDelivery]:
        """See `IRecovery.unfinished`; ``but_of`` are the servers whose deliveries are not."""
        rows = list(self._left_behind(but_of, older_than))[:limit]
        return [replace(row.stored, envelope=b"", body=b"") for row in rows]

    def count_unfinished(self, but_of: Collection[int], older_than: float) -> int:
        """See `IDeliveries.count_unfinished`; ``but_of`` as for `unfinished`."""
        return len(list(self._left_behind(but_of, older_than)))

    def states(self, owner: int, delivery_ids: Collection[int]) -> Mapping[int, str]:
        """See `IDeliveries.states`."""
        rows = (row for delivery_id, row in self._rows.items() if delivery_id in delivery_ids)
        return {row.stored.delivery_id: row.stored.state for row in rows if row.owner == owner or not row.is_unfinished}

    def dead_letter(
        self,
        now: float,
        trigger_id: str,
        version: int | None,
        dead: DeadLetter,
        excluding: Collection[int],
        *,
        waiting: bool = True,
        tried: bool = True,
    ) -> Sequence[GivenUp]:
        """See `IDeliveries.dead_letter`."""
        rows = [
            row
            for row in self._in_state(*((READY, WAITING) if waiting else (READY,)))
            if row.stored.trigger_id == trigger_id
            and version in (None, row.stored.version)
            and row.stored.delivery_id not in excluding
            and (tried or not row.stored.attempts)
        ]
        counts = Counter((row.stored.provider, row.stored.state) for row in rows)
        for row in rows:
            self._dead_letter(row, dead, now)
        providers = sorted({row.stored.provider for row in rows})
        return [GivenUp(each, counts[each, READY], counts[each, WAITING]) for each in providers]

    def skip(self, owner: int, at: float, delivery_id: int, reason: str) -> Unfinished | None:
        """See `IDeliveries.skip`."""
        row = self._rows.get(delivery_id)
        if row is None or not row.is_unfinished or row.owner != owner:
            return None
        found = Unfinished(row.stored.state, row.stored.version)
        row.stored = replace(row.stored, state=SKIPPED, due_at=None)
        row.settled_at = at
        return found

    def redrive(self, owner: int, trigger_id: str, version: int, to_version: int, since: float) -> int:
        """See `IDeliveries.redrive`."""
        rows = [
            row
            for row in self._of_version(trigger_id, version, DEAD)
            if row.dead is not None and row.dead.reason == RETRY_EXHAUSTED and (row.settled_at or 0.0) >= since
        ]
        for row in rows:
            row.stored = replace(row.stored, state=READY, version=to_version, attempts=0, passed=False, due_at=None)
            row.owner = owner
            row.settled_at = row.dead_number = row.dead = None
            self._claims.retake(row.stored.delivery_id)
        return len(rows)

    def recover(
        self,
        owner: int,
        now: float,
        limit: int,
        received_before: float | None,
        living: Collection[int],
        crashed: Mapping[int, Collection[int]],
    ) -> Recovery:
        """
        See `IDeliveries.recover`.

        :param living: servers whose deliveries stay theirs; ``crashed``: of each server, ids of what ran last.
        """
        going_on: list[Row] = []
        dead = counted = 0
        for row in list(self._left_behind((owner, *living), received_before)):
            was_running = row.stored.delivery_id in crashed.get(row.owner, ())
            row.owner = owner
            if was_running:
                counted += 1
                row.stored = replace(row.stored, crashes=row.stored.crashes + 1)
            if was_running and row.stored.crashes >= limit:
                self._dead_letter(row, recovery_limit(limit), now)
                dead += 1
            else:
                going_on.append(row)
        return Recovery(recovered=len(going_on), dead=dead, crashed=counted, backlog=tuple(count(going_on)))

    def has_unfinished(self, trigger_id: str, version: int) -> bool:
        """Return whether an unfinished delivery belongs to that version."""
        return bool(self._of_version(trigger_id, version, READY, WAITING))

    def records(self, topic: str) -> list[Record]:
        """Return all records of a topic that is a view of deliveries; none for any other."""
        if topic == INBOX:
            return [envelope_record(row.stored) for row in self._rows.values()]
        if topic == OUTBOX:
            return [outbox_record(self._recorded(number)) for number in self._attempts]
        if topic == ATTEMPTS:
            return [attempt_record(self._recorded(number)) for number in self._attempts]
        if topic == DEAD_LETTERS:
            dead = [row for row in self._rows.values() if row.dead_number is not None]
            return [self._dead_record(row) for row in sorted(dead, key=lambda row: row.dead_number or 0)]
        return []

    def trim_claims(self, now: float, limit: int) -> int:
        """Remove expired claims, up to ``limit``; count them."""
        return self._claims.trim(now, limit)

    def trim_finished(self, policy: RetentionPolicy, now: float, limit: int) -> int:
        """Remove deliveries that were finished so long ago, up to ``limit``; count them."""
        removed = 0
        for states, kept in ((OVER, policy.events), ((DEAD,), policy.dead)):
            old = [row for row in self._finished(*states) if (row.settled_at or 0.0) < now - kept]
            removed += self._remove(old[: limit - removed])
        return removed

    def _accept(self, new: NewDelivery, owner: int, now: float) -> int | None:
        if new.claim is None or new.dead is not None:
            return self._keep(new, owner)
        repeated = self._claims.released_by(new.claim)
        if not self._claims.take(new.claim, now, self._highest["delivery"] + 1):
            return None
        delivery_id = self._keep(new, owner)
        if repeated in self._rows:
            self._link(self._rows[repeated], self._rows[delivery_id], now)
        return delivery_id

    def _link(self, repeated: Row, row: Row, now: float) -> None:
        """Record the delivery that took the claim of a dead letter in that, and the other way round."""
        row.stored = replace(row.stored, replay_of=repeated.stored.event_id)
        if repeated.stored.state == DEAD:
            repeated.stored = replace(repeated.stored, state=REPLAYED)
            repeated.died_at, repeated.settled_at = repeated.settled_at, now

    def _keep(self, new: NewDelivery, owner: int) -> int:
        delivery_id = self._next("delivery")
        stored = StoredDelivery(
            delivery_id=delivery_id,
            event_id=new.event_id,
            trigger_id=new.trigger_id,
            version=new.version,
            provider=new.provider,
            kind=new.kind,
            state=READY,
            attempts=0,
            passed=False,
            crashes=0,
            due_at=None,
            received_at=new.received_at,
            replay_of=new.replay_of,
            envelope=new.envelope,
            body=new.body,
        )
        row = self._rows[delivery_id] = Row(stored, owner)
        if new.dead is not None:
            self._dead_letter(row, new.dead, new.received_at)
        return delivery_id

    def _dead_letter(self, row: Row, dead: DeadLetter, at: float) -> None:
        row.stored = replace(row.stored, state=DEAD, due_at=None)
        row.settled_at, row.dead_number, row.dead = at, self._next("dead"), dead
        self._claims.release(row.stored.delivery_id)

    def _next(self, name: str) -> int:
        self._highest[name] += 1
        return self._highest[name]

    def _in_state(self, *states: str) -> Iterator[Row]:
        return (row for row in self._rows.values() if row.stored.state in (states or (READY, WAITING)))

    def _of_version(self, trigger_id: str, version: int, *states: str, excluding: Collection[int] = ()) -> list[Row]:
        return [
            row
            for row in self._in_state(*states)
            if (row.stored.trigger_id, row.stored.version) == (trigger_id, version)
            and row.stored.delivery_id not in excluding
        ]

    def _left_behind(self, but_of: Collection[int], received_before: float | None) -> Iterator[Row]:
        for row in self._in_state():
            if row.owner not in but_of and (received_before is None or row.stored.received_at < received_before):
                yield row

    def _finished(self, *states: str) -> list[Row]:
        rows = self._in_state(*states)
        return sorted(rows, key=lambda row: row.settled_at or 0.0)

    def _remove(self, rows: Sequence[Row]) -> int:
        for row in rows:
            del self._rows[row.stored.delivery_id]
        self._attempts = {number: entry for number, entry in self._attempts.items() if entry[0] in self._rows}
        return len(rows)

    def _recent(self, row: Row) -> RecentEvent:
        stored = row.stored
        outcomes = [attempt.outcome for attempt in self._attempts_of(stored.delivery_id)]
        return RecentEvent(
            event_id=stored.event_id,
            trigger_id=stored.trigger_id,
            version=stored.version,
            kind=stored.kind,
            received_at=stored.received_at,
            disposition=disposition(
                stored.state,
                None if row.dead is None else row.dead.reason,
                stored.passed,
                outcomes[-1] if outcomes else None,
                "success" in outcomes,
            ),
            envelope=stored.envelope,
            body=stored.body,
        )

    def _attempts_of(self, delivery_id: int) -> list[Attempt]:
        return [attempt for of_id, attempt in self._attempts.values() if of_id == delivery_id]

    def _recorded(self, number: int) -> RecordedAttempt:
        delivery_id, attempt = self._attempts[number]
        row = self._rows[delivery_id]
        return RecordedAttempt(
            number=number,
            event_id=row.stored.event_id,
            trigger_id=row.stored.trigger_id,
            provider=row.stored.provider,
            kind=row.stored.kind,
            replay_of=row.stored.replay_of,
            attempt=attempt,
            result=row.result,
        )

    def _dead_record(self, row: Row) -> Record:
        attempts = self._attempts_of(row.stored.delivery_id)
        dead = row.dead or DeadLetter(reason="", error_class="", error="")
        died_at = row.settled_at if row.died_at is None else row.died_at
        return dead_record(row.dead_number or 0, row.stored, dead, died_at or 0.0, attempts)


def count(rows: Iterable[Row]) -> list[Backlog]:
    """Count unfinished rows by binding version."""
    counts: defaultdict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        counts[row.stored.trigger_id, row.stored.version][row.stored.state == WAITING] += 1
    return [
        Backlog(trigger_id=trigger_id, version=version, ready=ready, waiting=waiting)
        for (trigger_id, version), (ready, waiting) in sorted(counts.items())
    ]
