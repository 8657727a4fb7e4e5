"""
Retention: rows that the policy does not keep are found by an index and not by a scan.

PostgreSQL uses the room of removed rows again once it has vacuumed their tables, which it does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harn.store.postgres import recovery
from harn.store.postgres.claims import EXPIRED
from harn.store.postgres.event_log import LOG
from harn.store.postgres.generations import GENERATIONS, STANDING
from harn.store.postgres.jobs import JOBS
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.statistics import TOTALS
from harn.store.trimming import Trimming, TrimStatements

_MEASURE = (
    "SELECT coalesce(sum(octet_length(envelope) + octet_length(body)), 0)::bigint, count(*), max(id) FROM events"
    " WHERE id > $1::bigint"
)
_MEASURED = "events_measured"
"""What ``standing`` keeps the last measurement of the events under."""
PER_DELIVERY = 1024
"""Bytes that the rows and indices of a delivery take beside its event, about."""


class _Measured(msgspec.Struct):
    """The size of the events up to an id, in bytes."""

    until: int = 0
    size: int = 0


class PostgresTrimming(Trimming):
    """Retention on PostgreSQL."""

    sql = TrimStatements(
        claims=EXPIRED,
        finished=(
            "SELECT d.id, octet_length(e.envelope) + octet_length(e.body) FROM deliveries d"
            " JOIN events e ON e.id = d.id"
            " WHERE d.state >= 2 AND d.state = $1::smallint AND d.settled_at < $2::float8"
            " ORDER BY d.settled_at, d.id LIMIT $3::bigint"
        ),
        remove=(
            "WITH attempted AS (DELETE FROM attempts WHERE delivery_id = ANY ($1::bigint[])),"
            " event AS (DELETE FROM events WHERE id = ANY ($1::bigint[]))"
            " DELETE FROM deliveries WHERE id = ANY ($1::bigint[])",
        ),
        log=LOG,
        jobs=JOBS,
        totals=TOTALS,
        generations=GENERATIONS,
    )

    def trim_servers(self, session: PostgresSession, before: float) -> int:
        """See `Trimming.trim_servers`."""
        return recovery.trim_servers(session, before)

    def used_bytes(self, session: PostgresSession) -> int:
        """
        See `Trimming.used_bytes`: what was measured before, and the events that came since.

        Tables keep the room of removed rows for later ones, so that their own size does not say what is in use.
        """
        found = _noted(session) or _Measured()
        size, count, last = session.connection.execute(_MEASURE, (found.until,)).fetchone()
        if count:
            _note(session, _Measured(last, found.size + size + count * PER_DELIVERY))
        return int(found.size + size + count * PER_DELIVERY)

    def removes(self, session: PostgresSession, found: Sequence[tuple[int, int]]) -> None:
        """See `Trimming.removes`: they are not measured any more."""
        measured = _noted(session)
        if measured is not None:
            gone = sum(size + PER_DELIVERY for delivery_id, size in found if delivery_id <= measured.until)
            _note(session, _Measured(measured.until, measured.size - gone))


def _noted(session: PostgresSession) -> _Measured | None:
    row = session.connection.execute(STANDING.get, (_MEASURED,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=_Measured)


def _note(session: PostgresSession, measured: _Measured) -> None:
    STANDING.put_all(session, {_MEASURED: msgspec.json.encode(measured)})
