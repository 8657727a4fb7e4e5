"""The steps of retention on every dialect: each removes a slice of rows that the policy does not keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import Struct

from harn.store.database import Session
from harn.store.figures import TotalsStatements
from harn.store.generations import GenerationStatements
from harn.store.records import LogStatements
from harn.store.replays import JobStatements
from harn.store.retention import RetentionPolicy
from harn.store.rows import DEAD, DONE

MOST_BYTES = 8 << 20
"""Bodies of one slice: SQLite, for one, walks along the pages of each that it removes."""


class TrimStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar claims: now (seconds, Unix), limit: claims whose time has come, released or not.
    :ivar finished: state, settled before, limit: ids and bytes of events, the first settled first.
    :ivar remove: ids: all rows of these deliveries.
    """

    claims: str
    finished: str
    remove: tuple[str, ...]
    log: LogStatements
    jobs: JobStatements
    totals: TotalsStatements
    generations: GenerationStatements


class Trimming:
    """`harn.store.retention.IRetention.trim` with the statements of ``sql``, within a transaction of the caller's."""

    sql: ClassVar[TrimStatements]

    def trim_servers(self, session: Any, before: float) -> int:
        """Delete the rows of other servers that were alive last before then (seconds, Unix); return how many."""
        raise NotImplementedError

    def used_bytes(self, session: Any) -> int:
        """Return the size of the data, without what is free for use."""
        raise NotImplementedError

    def removes(self, session: Any, found: Sequence[tuple[int, int]]) -> None:
        """Called before deliveries are removed: ids, and bytes of their events."""

    def trim(self, session: Session, policy: RetentionPolicy, now: float, limit: int) -> int:
        """See `IRetention.trim`: the steps in order, until ``limit`` rows are removed."""
        sql, old = self.sql, now - policy.events
        removed = session.connection.execute(sql.claims, (float(now), limit)).rowcount
        session.keep_numbers()
        if removed < limit:
            removed += sql.log.trim(session, old, limit - removed)
        for state, kept in ((DONE, policy.events), (DEAD, policy.dead)):
            if removed < limit:
                removed += self._remove_finished(session, state, now - kept, limit - removed, MOST_BYTES)
        if removed < limit:
            removed += sql.jobs.trim(session, old, limit - removed)
        if removed < limit:
            removed += self.trim_servers(session, old)
        if removed < limit:
            removed += sql.totals.trim_refused(session, old, limit - removed)
        if removed < limit and policy.max_bytes is not None:
            removed += self._remove_excess(session, policy.max_bytes, limit - removed)
        if not removed:
            # Once in a sweep, at its end: these look at every binding version and every trigger.
            removed = sql.generations.trim(session, policy, limit)
            if removed < limit:
                removed += sql.totals.trim(session, policy, now, limit - removed)
        return removed

    def _remove_finished(self, session: Session, state: int, before: float, limit: int, most_bytes: int) -> int:
        found: list[tuple[int, int]] = []
        size = 0
        for delivery_id, length in session.connection.execute(self.sql.finished, (state, float(before), limit)):
            found.append((delivery_id, length))
            size += length
            if size >= most_bytes:
                break
        if found:
            self.removes(session, found)
            ids = session.arrays.of([delivery_id for delivery_id, _ in found])
            for statement in self.sql.remove:
                session.connection.execute(statement, (ids,))
        return len(found)

    def _remove_excess(self, session: Session, max_bytes: int, limit: int) -> int:
        """Remove the oldest deliveries that are done; dead letters, which may be replayed, only if none is left."""
        excess = self.used_bytes(session) - max_bytes
        if excess <= 0:
            return 0
        for state in (DONE, DEAD):
            removed = self._remove_finished(session, state, float("inf"), limit, min(excess, MOST_BYTES))
            if removed:
                return removed
        return 0
