"""The event log: its own records, and the topics that are views of deliveries and attempts."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX, IEventLog
from harn.store.halves import AppendUnit
from harn.store.lists import ATTEMPT_COLUMNS
from harn.store.postgres.deliveries import COLUMNS, FROM
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.settling import columns, floats
from harn.store.records import EventLogHalf, LogStatements

TABLES = """
CREATE TABLE log (
    number bigint PRIMARY KEY,
    topic text NOT NULL,
    kind text NOT NULL,
    occurred_at double precision NOT NULL,
    headers bytea NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX log_topic ON log (topic, number);
"""

_ATTEMPTS = (
    "SELECT a.id, d.event_id, d.trigger_id, d.provider, d.kind, d.replay_of, {},"
    " (SELECT convert_from(b.spec, 'UTF8')::json->>'handler' FROM binding_versions b"
    " WHERE b.trigger_id = d.trigger_id AND b.version = a.version),"
    " a.number, a.version, a.started_at, a.completed_at, a.outcome, a.error_class, a.error"
    " FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE a.id > $1::bigint ORDER BY a.id LIMIT $2::bigint"
)
LOG = LogStatements(
    log=(
        "SELECT number, kind, occurred_at, headers, payload FROM log WHERE topic = $1::text AND number > $2::bigint"
        " ORDER BY number LIMIT $3::bigint"
    ),
    envelopes="SELECT " + COLUMNS + FROM + "WHERE d.id > $1::bigint ORDER BY d.id LIMIT $2::bigint",
    outbox=_ATTEMPTS.format("CASE WHEN a.outcome = 'success' THEN d.result END"),
    attempts=_ATTEMPTS.format("NULL"),
    dead=(
        "SELECT " + COLUMNS + ", d.dead_number, coalesce(d.died_at, d.settled_at), d.reason, d.error_class, d.error"
        "" + FROM + "WHERE d.dead_number > $1::bigint ORDER BY d.dead_number LIMIT $2::bigint"
    ),
    attempts_of="SELECT " + ATTEMPT_COLUMNS + " FROM attempts WHERE delivery_id = $1::bigint ORDER BY id",
    latest={
        INBOX: "SELECT max(id) FROM deliveries",
        OUTBOX: "SELECT max(id) FROM attempts",
        ATTEMPTS: "SELECT max(id) FROM attempts",
        DEAD_LETTERS: "SELECT max(dead_number) FROM deliveries WHERE dead_number IS NOT NULL",
    },
    latest_of_log="SELECT max(number) FROM log WHERE topic = $1::text",
    # One step in the index for each topic, where DISTINCT would read all of it.
    topics=(
        "WITH RECURSIVE found (topic) AS (SELECT min(topic) FROM log UNION ALL"
        " SELECT (SELECT min(topic) FROM log WHERE topic > found.topic) FROM found WHERE found.topic IS NOT NULL)"
        " SELECT topic FROM found WHERE topic IS NOT NULL"
    ),
    # Numbers rise with time, so that the oldest come first; a WHERE inside would read on to the end where there are
    # none.
    old=(
        "DELETE FROM log WHERE number IN (SELECT number FROM (SELECT number, occurred_at FROM log"
        " ORDER BY number LIMIT $1::bigint) AS first WHERE occurred_at < $2::float8)"
    ),
)
_INSERT = (
    "INSERT INTO log (number, topic, kind, headers, payload, occurred_at) SELECT * FROM"
    " unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::float8[])"
)


class PostgresAppend(AppendUnit):
    """Writes records with one statement."""

    __slots__ = ()

    @staticmethod
    def write_all(session: PostgresSession, units: Sequence[PostgresAppend], now: float) -> None:
        """Write records of the log, in order."""
        numbers = session.numbers
        rows = []
        for unit in units:
            numbers.record += 1
            unit.value = numbers.record
            rows.append((numbers.record, unit.topic, unit.kind, unit.headers, unit.payload, unit.at))
        *values, at = columns(rows, 6)
        session.connection.execute(_INSERT, (*values, floats(at)))


@implementer(IEventLog)
class PostgresEventLog(EventLogHalf):
    """`IEventLog` on PostgreSQL."""

    sql = LOG
    unit = PostgresAppend
