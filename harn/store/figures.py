"""Figures of triggers on every dialect: statistics of a window of time, and totals over all servers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct

from harn.store.checkpoints import StandingStatements, encode_checkpoints
from harn.store.database import Connection, Session
from harn.store.executor import Idea, reads, writes
from harn.store.lists import first_at
from harn.store.statistics import (
    AcceptedGroup,
    AttemptGroup,
    DoneGroup,
    IdRange,
    RefusedCount,
    TriggerBacklog,
    TriggerTotal,
    TriggerUnfinished,
)

if TYPE_CHECKING:
    from harn.store.retention import RetentionPolicy

COUNTED = "totals_counted"
"""What ``standing`` keeps the highest id of a counted delivery under."""


class StatisticsStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar attempt_ends, delivery_ends: none: the lowest id, 1 where there is none, and the highest, or 0.
    :ivar next_attempt, next_delivery: an id: it or the next above it, and when it ended, or came.
    :ivar attempts: first id, last id, since; as `_attempt_groups` reads it.
    :ivar accepted: the same; as `AcceptedGroup`.
    :ivar died: since: trigger and count, a trigger in several rows.
    :ivar refused: since (minutes, Unix).
    :ivar specs: `Arrays.pairs`: trigger, version, spec.
    """

    attempt_ends: str
    delivery_ends: str
    next_attempt: str
    next_delivery: str
    attempts: str
    accepted: str
    died: str
    refused: str
    specs: str


class TotalsStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar totals: none; as `_total_of` reads it.
    :ivar highest: none.
    :ivar latest_attempts: limit.
    :ivar dead, unfinished: none.
    :ivar backlogs: ids of what runs; as `_backlogs_of` reads it.
    :ivar accepted_since: after, until, limit: trigger, count, highest id.
    :ivar add, add_refused: rows of `TriggerTotal`, and minute, trigger, reason and count of refused requests.
    :ivar old_refused: before (minutes, Unix), limit.
    :ivar gone: triggers that are served, before, limit.
    """

    totals: str
    highest: str
    latest_attempts: str
    dead: str
    unfinished: str
    backlogs: str
    accepted_since: str
    add: str
    add_refused: str
    old_refused: str
    gone: str

    def trim_refused(self, session: Session, before: float, limit: int) -> int:
        """Remove up to ``limit`` rows about minutes that ended before then (seconds, Unix); return how many."""
        return session.connection.execute(self.old_refused, (int(before // 60.0), limit)).rowcount

    def trim(self, session: Session, policy: RetentionPolicy, now: float, limit: int) -> int:
        """Remove the totals of up to ``limit`` triggers that are not served and have no rows; return how many."""
        if not policy.triggers:
            return 0
        values = (session.arrays.of(policy.triggers), now - policy.events, limit)
        return session.connection.execute(self.gone, values).rowcount


class StatisticsHalf(Idea):
    """`harn.store.statistics.IStatistics` with the statements of ``sql``."""

    sql: ClassVar[StatisticsStatements]

    @reads
    def attempts_since(self, connection: Connection, since: float) -> IdRange:
        """See `IStatistics.attempts_since`."""
        low, last = connection.execute(self.sql.attempt_ends).fetchone()
        return IdRange(first_at(connection, self.sql.next_attempt, low, last, since), last)

    @reads
    def deliveries_since(self, connection: Connection, since: float) -> IdRange:
        """See `IStatistics.deliveries_since`."""
        low, last = connection.execute(self.sql.delivery_ends).fetchone()
        return IdRange(first_at(connection, self.sql.next_delivery, low, last, since), last)

    @reads
    def attempts(
        self, connection: Connection, span: IdRange, since: float
    ) -> tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]:
        """See `IStatistics.attempts`."""
        return _attempt_groups(connection.execute(self.sql.attempts, (span.first, span.last, float(since))))

    @reads
    def accepted(self, connection: Connection, span: IdRange, since: float) -> Sequence[AcceptedGroup]:
        """See `IStatistics.accepted`."""
        rows = connection.execute(self.sql.accepted, (span.first, span.last, float(since)))
        return [AcceptedGroup(*row) for row in rows]

    @reads
    def died(self, connection: Connection, since: float) -> Mapping[str, int]:
        """See `IStatistics.died`."""
        found: dict[str, int] = {}
        for trigger_id, count in connection.execute(self.sql.died, (float(since),)):
            found[trigger_id] = found.get(trigger_id, 0) + count
        return found

    @reads
    def refused(self, connection: Connection, since: float) -> Mapping[str, int]:
        """See `IStatistics.refused`."""
        return dict(connection.execute(self.sql.refused, (int(since // 60.0),)).fetchall())

    @reads
    def handlers(self, connection: Connection, versions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], str]:
        """See `IStatistics.handlers`."""
        return {
            (trigger_id, version): msgspec.json.decode(spec, type=_HandlerOfSpec).handler
            for trigger_id, version, spec in connection.execute(self.sql.specs, self._executor.arrays.pairs(versions))
        }


class TotalsHalf(Idea):
    """`harn.store.statistics.ITotals` with the statements of ``sql``; how far they count is kept with ``standing``."""

    sql: ClassVar[TotalsStatements]
    standing: ClassVar[StandingStatements]

    @reads
    def totals(self, connection: Connection) -> Mapping[str, TriggerTotal]:
        """See `ITotals.totals`."""
        return {row[0]: _total_of(row) for row in connection.execute(self.sql.totals)}

    @writes
    def add(
        self, session: Session, totals: Sequence[TriggerTotal], refused: Sequence[RefusedCount], counted: int
    ) -> None:
        """See `ITotals.add`."""
        self._add(session, totals)
        session.write_rows(
            self.sql.add_refused, [(each.minute, each.trigger_id, each.reason, each.count) for each in refused]
        )
        if counted > self._counted(session.connection):
            self._note_counted(session, counted)

    @writes
    def count_on(self, session: Session, until: int, limit: int) -> int:
        """See `ITotals.count_on`."""
        found = self._accepted_since(session.connection, until, limit)
        if not found:
            return 0
        self._add(session, [TriggerTotal(trigger_id=trigger_id, accepted=count) for trigger_id, count, _ in found])
        self._note_counted(session, max(last for _, _, last in found))
        return sum(count for _, count, _ in found)

    @reads
    def highest(self, connection: Connection) -> int:
        """See `ITotals.highest`."""
        return int(connection.execute(self.sql.highest).fetchone()[0])

    @reads
    def latest_attempts(self, connection: Connection, limit: int) -> Mapping[str, TriggerTotal]:
        """See `ITotals.latest_attempts`."""
        return {
            trigger_id: TriggerTotal(trigger_id=trigger_id, last_success=success, last_failure=failure)
            for trigger_id, success, failure in connection.execute(self.sql.latest_attempts, (limit,))
        }

    @reads
    def uncounted(self, connection: Connection, limit: int) -> Mapping[str, int]:
        """See `ITotals.uncounted`."""
        return {trigger_id: count for trigger_id, count, _ in self._accepted_since(connection, 2**63 - 1, limit)}

    @reads
    def dead(self, connection: Connection) -> Mapping[str, int]:
        """See `ITotals.dead`."""
        return dict(connection.execute(self.sql.dead).fetchall())

    @reads
    def unfinished(self, connection: Connection) -> Sequence[TriggerUnfinished]:
        """See `ITotals.unfinished`."""
        return [
            TriggerUnfinished(trigger_id=trigger_id, ready=ready, waiting=waiting)
            for trigger_id, ready, waiting in connection.execute(self.sql.unfinished)
        ]

    @reads
    def backlogs(self, connection: Connection, now: float, running: Collection[int]) -> Mapping[str, TriggerBacklog]:
        """See `ITotals.backlogs`."""
        return _backlogs_of(connection.execute(self.sql.backlogs, (self._executor.arrays.of(running),)), now)

    def _accepted_since(self, connection: Connection, until: int, limit: int) -> Sequence[tuple[str, int, int]]:
        which = (self._counted(connection), until, limit)
        return connection.execute(self.sql.accepted_since, which).fetchall()

    def _counted(self, connection: Connection) -> int:
        return int(self.standing.read(connection, COUNTED) or 0)

    def _note_counted(self, session: Session, counted: int) -> None:
        self.standing.put_all(session, encode_checkpoints({COUNTED: counted}))

    def _add(self, session: Session, totals: Sequence[TriggerTotal]) -> None:
        rows = [
            (each.trigger_id, each.accepted, each.refused, _time(each.last_success), _time(each.last_failure))
            for each in totals
        ]
        session.write_rows(self.sql.add, rows)


def _time(value: float | None) -> float | None:
    return None if value is None else float(value)


class _HandlerOfSpec(msgspec.Struct):
    """The part of a trigger's stored definition that names its handler."""

    handler: str


def _attempt_groups(rows: Iterable[Sequence[Any]]) -> tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]:
    """Read groups of attempts: whether it is one of deliveries that are done; trigger, version, outcome, and so on."""
    ended: list[AttemptGroup] = []
    done: list[DoneGroup] = []
    for is_whole, trigger_id, version, outcome, seconds, count in rows:
        if is_whole:
            done.append(DoneGroup(trigger_id, version, seconds, count))
        else:
            ended.append(AttemptGroup(trigger_id, version, outcome, seconds, count))
    return ended, done


def _total_of(row: Sequence[Any]) -> TriggerTotal:
    """Read the totals of a trigger."""
    trigger_id, accepted, refused, success, failure = row
    return TriggerTotal(
        trigger_id=trigger_id, accepted=accepted, refused=refused, last_success=success, last_failure=failure
    )


def _backlogs_of(rows: Iterable[Sequence[Any]], now: float) -> dict[str, TriggerBacklog]:
    """
    Read the oldest deliveries of binding versions: trigger, the oldest that is ready, that waits, the next that is due.

    :param now: seconds, Unix: what is due by then is ready.
    """
    found: dict[str, TriggerBacklog] = {}
    for trigger_id, ready, waiting, due in rows:
        of_others = found.get(trigger_id)
        if of_others is not None:
            ready = _earliest((ready, of_others.oldest_ready))
            waiting = _earliest((waiting, of_others.oldest_waiting))
        found[trigger_id] = TriggerBacklog(
            trigger_id=trigger_id,
            oldest_ready=_earliest((ready, due if due is not None and due <= now else None)),
            oldest_waiting=waiting,
            next_due=due,
        )
    return found


def _earliest(times: Iterable[float | None]) -> float | None:
    return min((each for each in times if each is not None), default=None)
